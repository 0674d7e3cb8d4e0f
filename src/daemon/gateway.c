#include "daemon/gateway.h"

#include "daemon/relay.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKLOG 511

/* One for each address that LISTEN stands for. */
struct listener {
    uv_tcp_t tcp;
    struct ns_gateway *gateway;
    struct listener *next;
};

struct ns_gateway {
    uv_loop_t *loop;
    struct ns_gateway_route route;
    void (*say)(const char *line);
    struct listener *listeners;
    size_t uses; /* listeners and connections that point here */
};

/* An accepted connection whose other one is being made: first the name, then its addresses in turn. */
struct passage {
    struct ns_gateway *gateway;
    uv_tcp_t *accepted, *attempt;
    uv_getaddrinfo_t lookup;
    uv_connect_t connect;
    struct addrinfo *addresses, *at;
};

/* ---- LISTEN:HOST:PORT ---- */

static int malformed(const char *text, const char *what, char *error, size_t error_bytes)
{
    snprintf(error, error_bytes, "'%s': %s; write [ADDRESS:]PORT:HOST:PORT, an IPv6 address in []", text,
             what);
    return -EINVAL;
}

static bool valid_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    long port = strtol(text, NULL, 10);

    return digits > 0 && digits <= 5 && !text[digits] && port >= 1 && port <= 65535;
}

/* Cuts ":tail" off `text` at its last colon outside brackets. NULL when there is none. */
static char *cut_last(char *text)
{
    char *colon = strrchr(text, ':');

    if (!colon || strchr(colon, ']'))
        return NULL;
    *colon = '\0';
    return colon + 1;
}

/* Cuts a host off the end of `text`, its brackets too. NULL when there is none. */
static char *cut_host(char *text)
{
    size_t len = strlen(text);
    char *open;

    if (len == 0 || text[len - 1] != ']')
        return cut_last(text);
    text[len - 1] = '\0';
    open = strrchr(text, '[');
    if (!open || open == text || open[-1] != ':')
        return NULL;
    open[-1] = '\0';
    return open + 1;
}

static bool copy_host(char *to, size_t to_bytes, const char *from)
{
    size_t len = strlen(from);

    if (len > 1 && from[0] == '[' && from[len - 1] == ']')
        return snprintf(to, to_bytes, "%.*s", (int)len - 2, from + 1) < (int)to_bytes;
    return !strpbrk(from, "[]:") && snprintf(to, to_bytes, "%s", from) < (int)to_bytes;
}

static bool is_here(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0;
}

/* Whether it would relay to where it listens, over and over, as far as the text tells. */
static bool is_loop(const struct ns_gateway_route *route)
{
    const char *at = route->listen_host, *to = route->host;
    bool everywhere = !*at || strcmp(at, "0.0.0.0") == 0 || strcmp(at, "::") == 0;

    if (atoi(route->listen_port) != atoi(route->port))
        return false;
    return strcmp(at, to) == 0 || (is_here(to) && (everywhere || strcmp(at, "localhost") == 0)) ||
           (is_here(at) && strcmp(to, "localhost") == 0);
}

int ns_gateway_parse(const char *text, struct ns_gateway_route *out, char *error, size_t error_bytes)
{
    char copy[640], *port, *host, *listen_port;

    if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
        return malformed("...", "too long", error, error_bytes);
    port = cut_last(copy);
    if (!port || !valid_port(port))
        return malformed(text, "the last part is no port", error, error_bytes);
    host = cut_host(copy);
    if (!host || !*host || strlen(host) >= sizeof(out->host))
        return malformed(text, "there is no host before the last port", error, error_bytes);
    listen_port = cut_last(copy);
    if (!valid_port(listen_port ? listen_port : copy))
        return malformed(text, "there is no port to listen on", error, error_bytes);
    if (!copy_host(out->listen_host, sizeof(out->listen_host), listen_port ? copy : ""))
        return malformed(text, "the address to listen on is malformed", error, error_bytes);
    strcpy(out->host, host);
    strcpy(out->port, port);
    strcpy(out->listen_port, listen_port ? listen_port : copy);
    if (is_loop(out)) {
        snprintf(error, error_bytes,
                 "'%s': it would relay to itself; listen on another port than HOST's, or on another address",
                 text);
        return -EINVAL;
    }
    return 0;
}

/* ---- lifetime ---- */

static void release(struct ns_gateway *gateway)
{
    if (--gateway->uses == 0)
        free(gateway);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;

    release(listener->gateway);
    free(listener);
}

void ns_gateway_close(struct ns_gateway *gateway)
{
    struct listener *listener = gateway->listeners, *next;

    gateway->listeners = NULL;
    for (; listener; listener = next) {
        next = listener->next;
        uv_close((uv_handle_t *)&listener->tcp, on_listener_closed);
    }
    release(gateway);
}

/* ---- making the second connection ---- */

static void complain(struct ns_gateway *gateway, const char *what, const char *why)
{
    char line[700];

    snprintf(line, sizeof(line), "%s %s:%s: %s", what, gateway->route.host, gateway->route.port, why);
    gateway->say(line);
}

/* The accepted connection is the relay's by now, or has been reset. */
static void end_passage(struct passage *p)
{
    uv_freeaddrinfo(p->addresses);
    release(p->gateway);
    free(p);
}

/* A client of a server that refuses gets a reset from it, and so does ours. */
static void give_up(struct passage *p, const char *what, int error)
{
    complain(p->gateway, what, uv_strerror(error));
    ns_relay_reset(p->accepted);
    end_passage(p);
}

static void try_addresses(struct passage *p, int error);

static void on_connected(uv_connect_t *request, int status)
{
    struct passage *p = request->data;

    if (status < 0) {
        ns_relay_discard(p->attempt);
        p->at = p->at->ai_next;
        try_addresses(p, status);
        return;
    }
    ns_relay_start(p->accepted, p->attempt, NULL, NULL);
    end_passage(p);
}

/* From p->at on; `error` is what became of the one before. */
static void try_addresses(struct passage *p, int error)
{
    for (; p->at; p->at = p->at->ai_next) {
        p->attempt = malloc(sizeof(*p->attempt));
        if (!p->attempt) {
            error = UV_ENOMEM;
            break;
        }
        uv_tcp_init(p->gateway->loop, p->attempt);
        p->connect.data = p;
        error = uv_tcp_connect(&p->connect, p->attempt, p->at->ai_addr, on_connected);
        if (error == 0)
            return;
        ns_relay_discard(p->attempt);
    }
    give_up(p, "cannot connect to", error);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct passage *p = request->data;

    p->addresses = p->at = addresses;
    if (status < 0)
        give_up(p, "cannot look up", status);
    else
        try_addresses(p, UV_EAI_NODATA);
}

static void begin_passage(struct ns_gateway *gateway, uv_tcp_t *accepted)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct passage *p = calloc(1, sizeof(*p));
    int r;

    if (!p) {
        ns_relay_reset(accepted);
        return;
    }
    p->gateway = gateway;
    p->accepted = accepted;
    p->lookup.data = p;
    gateway->uses++;
    r = uv_getaddrinfo(gateway->loop, &p->lookup, on_resolved, gateway->route.host, gateway->route.port,
                       &hints);
    if (r < 0)
        give_up(p, "cannot look up", r);
}

/* ---- listening ---- */

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *listener = stream->data;
    uv_tcp_t *accepted;

    if (status < 0) {
        complain(listener->gateway, "cannot accept a connection for", uv_strerror(status));
        return;
    }
    accepted = malloc(sizeof(*accepted));
    if (!accepted) {
        /* libuv would listen no more, in silence, if it were not taken. */
        complain(listener->gateway, "cannot relay to", "no memory");
        abort();
    }
    uv_tcp_init(listener->gateway->loop, accepted);
    if (uv_accept(stream, (uv_stream_t *)accepted) < 0)
        ns_relay_discard(accepted);
    else
        begin_passage(listener->gateway, accepted);
}

static int listen_on(struct ns_gateway *gateway, const struct addrinfo *a)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    int r;

    if (!listener)
        return UV_ENOMEM;
    r = uv_tcp_init(gateway->loop, &listener->tcp);
    if (r < 0) {
        free(listener);
        return r;
    }
    listener->tcp.data = listener;
    listener->gateway = gateway;
    listener->next = gateway->listeners;
    gateway->listeners = listener;
    gateway->uses++;
    /* IPv4 has a listener of its own where LISTEN stands for both. */
    r = uv_tcp_bind(&listener->tcp, a->ai_addr, a->ai_family == AF_INET6 ? UV_TCP_IPV6ONLY : 0);
    return r < 0 ? r : uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_connection);
}

struct ns_gateway *ns_gateway_open(uv_loop_t *loop, const struct ns_gateway_route *route,
                                   void (*say)(const char *line), char *error, size_t error_bytes)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC,
                              .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    const char *host = *route->listen_host ? route->listen_host : NULL;
    struct ns_gateway *gateway = calloc(1, sizeof(*gateway));
    struct addrinfo *addresses, *a;
    int r;

    if (!gateway) {
        snprintf(error, error_bytes, "no memory");
        return NULL;
    }
    gateway->loop = loop;
    gateway->route = *route;
    gateway->say = say;
    gateway->uses = 1;
    r = getaddrinfo(host, route->listen_port, &hints, &addresses);
    if (r != 0) {
        snprintf(error, error_bytes, "cannot listen on %s: %s", host ? host : "any address", gai_strerror(r));
        release(gateway);
        return NULL;
    }
    for (a = addresses, r = 0; a && r == 0; a = a->ai_next) {
        r = listen_on(gateway, a);
        /* A machine without IPv6 has its wildcard all the same (getaddrinfo(3)). */
        if (r == UV_EAFNOSUPPORT && a->ai_next)
            r = 0;
    }
    freeaddrinfo(addresses);
    if (r < 0) {
        snprintf(error, error_bytes, "cannot listen on %s port %s: %s", host ? host : "any address",
                 route->listen_port, uv_strerror(r));
        ns_gateway_close(gateway);
        return NULL;
    }
    return gateway;
}
