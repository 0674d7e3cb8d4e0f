/*
 * Plain TCP lets a program write as soon as its connection stands; a session whose
 * peer is being asked (ask.h) does not. A peer nearby answers so soon that calls which
 * would otherwise tell of it wait for the answer instead: a write that must not block,
 * and poll, select and epoll_wait where they are asked for, or find, what can be written.
 *
 * So it is when a peer has hung up. Plain TCP says so as soon as its reset is here; a session
 * first asks the peer, since the reset may be the network's. One nearby has
 * answered soon, and until then reads, writes and waits that are over at once wait for it.
 *
 * Signals do not end these waits; the call that they are in has to look whether one came.
 * No lock held; for poll's and the write's the thread is inside something (slot.h).
 */
#ifndef NS_ENGINE_AWAIT_H
#define NS_ENGINE_AWAIT_H

#include "engine/sock.h"

#include <poll.h>

/* Notes whether the peer is nearby, when its hold begins; tx held, before NS_ASKING. */
void ns_await_mark(struct ns_sock *s, int64_t rtt_us);

/* Notes until when it is waited for whether the peer has hung up; tx held, before NS_SUSPENDED. */
void ns_await_mark_reset(struct ns_sock *s, int fd, int error);

/*
 * Waits until the answer is here or the hold is over. Returns whether it is: false when
 * the peer is far, and for a second after one was waited for in vain, so that an event
 * loop stands still for one hold a second at most.
 */
bool ns_await_answer(const struct ns_sock *s);

/* For those that `fds` ask about; `at_once`: the wait has no time. Returns whether time may have passed. */
bool ns_await_asked(const struct pollfd *fds, nfds_t n, bool at_once);
/* For those that the kernel has found to be writable: some have only now been seen to stand. */
void ns_await_found(const struct pollfd *fds, nfds_t n);

/* The same for what is registered in `epfd`, and for what it has reported. */
bool ns_await_registered(int epfd, bool at_once);
void ns_await_reported(int epfd, const struct epoll_event *events, int n);

#endif
