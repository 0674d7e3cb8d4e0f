/*
 * Ending another thread's blocking system call, whatever it is and without a trace: it
 * returns EINTR, no handler of the application's runs, and no mask of its own keeps it from that.
 *
 * libc has a signal to change all threads' user ids (SIGSETXID), which it lets nobody block or
 * handle, and whose handler does nothing unless the signal is from tgkill(2) (glibc,
 * sysdeps/nptl/nptl_setxid.c). Queued by us it does nothing, and the call ends if the handler
 * is for a moment not one that restarts (SA_RESTART, signal(7)).
 */
#ifndef NS_ENGINE_INTERRUPT_H
#define NS_ENGINE_INTERRUPT_H

#include <stdbool.h>
#include <stdint.h>

/* Between these two calls end, and do not go on. On the helper. False where libc has no such
 * handler: nothing is interrupted. */
bool ns_interrupt_begin(void);
void ns_interrupt_end(void);

/* Whether there was ever such a time. libc's own use of that signal (setuid, in a process of
 * several threads) ends other calls then, too. */
bool ns_interrupt_used(void);

/* The descriptor that a thread of this process sleeps on in a read, or what else it does. Another
 * call must not be ended: the application would be told of a signal that it has never had. */
enum { NS_SLEEPS_ELSEWHERE = -1, NS_SLEEPS_NOT = -2, NS_SLEEPS_UNSEEN = -3 /* proc(5) does not tell */ };
int ns_thread_reads(uint32_t thread);

/* Asks it of such a one. */
void ns_interrupt(uint32_t thread);

/* Whether the call that it was in then has ended: the signal was taken, the thread has stopped
 * or is no more. */
bool ns_interrupt_taken(uint32_t thread);

#endif
