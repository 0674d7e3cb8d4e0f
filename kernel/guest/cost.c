/*
 * What TCP over IPv6 costs between two network namespaces: both ends in this one process, so that nothing is
 * scheduled in between, counted by the time stamp counter. Under QEMU's -icount that is a count of instructions, those
 * of this program among them, the same for every kernel.
 *
 *	cost NAMESPACE NAMESPACE ADDRESS NAME
 *
 * NAMESPACE: files of the client's and the server's; ADDRESS: the server's. Prints "cost NAME WHAT COUNT" for a request
 * and response of 32 bytes (rr), for connecting and closing (connection), and for 2^20 bytes (bulk). Each is the median
 * of many: a timer's tick that falls into one of them does not count.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <x86intrin.h>

enum { ROUNDS = 2001, CONNECTIONS = 501, MEGABYTES = 65 };

static int spaces[2];
static struct sockaddr_in6 address = {.sin6_family = AF_INET6};
static unsigned long long counts[ROUNDS];

static void need(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static int open_in(int space)
{
	int fd, one = 1;

	need(!setns(spaces[space], CLONE_NEWNET), "setns");
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	need(fd >= 0, "socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static int by_count(const void *a, const void *b)
{
	const unsigned long long *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void report(const char *name, const char *what, int n)
{
	qsort(counts, n, sizeof(*counts), by_count);
	printf("cost %s %s %llu\n", name, what, counts[n / 2]);
}

static void connected(int listener, int *client, int *server)
{
	*client = open_in(0);
	need(!connect(*client, (void *)&address, sizeof(address)), "connect");
	*server = accept(listener, NULL, NULL);
	need(*server >= 0, "accept");
}

/* Time goes by before what is measured: what is done at the beginning of a connection only is not meant here. */
static void rr(int client, int server, const char *name)
{
	unsigned long long began;
	char b[32] = {0};
	int i;

	for (i = -500; i < ROUNDS; i++) {
		began = __rdtsc();
		need(write(client, b, sizeof(b)) == sizeof(b) && read(server, b, sizeof(b)) == sizeof(b) &&
		     write(server, b, sizeof(b)) == sizeof(b) && read(client, b, sizeof(b)) == sizeof(b), "rr");
		if (i >= 0)
			counts[i] = __rdtsc() - began;
	}
	report(name, "rr", ROUNDS);
}

static void bulk(int client, int server, const char *name)
{
	static char b[65536];
	unsigned long long began;
	int i;

	fcntl(client, F_SETFL, O_NONBLOCK);
	fcntl(server, F_SETFL, O_NONBLOCK);
	for (i = -8; i < MEGABYTES; i++) {
		long sent = 0, got = 0, n;

		began = __rdtsc();
		while (got < 1 << 20) {
			n = sent < 1 << 20 ? send(client, b, sizeof(b), 0) : 0;
			need(n >= 0 || errno == EAGAIN, "send");
			sent += n > 0 ? n : 0;
			n = recv(server, b, sizeof(b), 0);
			need(n > 0 || errno == EAGAIN, "recv");
			got += n > 0 ? n : 0;
		}
		if (i >= 0)
			counts[i] = __rdtsc() - began;
	}
	report(name, "bulk", MEGABYTES);
}

static void connections(int listener, const char *name)
{
	int i, client, server;
	unsigned long long began;

	for (i = -20; i < CONNECTIONS; i++) {
		began = __rdtsc();
		connected(listener, &client, &server);
		close(client);
		close(server);
		if (i >= 0)
			counts[i] = __rdtsc() - began;
	}
	report(name, "connection", CONNECTIONS);
}

int main(int argc, char **argv)
{
	int listener, client, server, one = 1;
	unsigned char info[512];
	socklen_t size = sizeof(info);

	need(argc == 5 && inet_pton(AF_INET6, argv[3], &address.sin6_addr) == 1, "usage");
	spaces[0] = open(argv[1], O_RDONLY);
	spaces[1] = open(argv[2], O_RDONLY);
	address.sin6_port = htons(9000);
	listener = open_in(1);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	need(!bind(listener, (void *)&address, sizeof(address)) && !listen(listener, 9), "listen");
	connected(listener, &client, &server);
	rr(client, server, argv[4]);
	bulk(client, server, argv[4]);
	/* TCP_PRESERVE_INFO: 2 is "negotiated" */
	printf("state %s %d\n", argv[4], getsockopt(client, IPPROTO_TCP, 61, info, &size) ? -1 : info[0]);
	close(client);
	close(server);
	connections(listener, argv[4]);
	return 0;
}
