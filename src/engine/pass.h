/* Descriptors that go where the engine cannot follow. */
#ifndef NS_ENGINE_PASS_H
#define NS_ENGINE_PASS_H

#include "engine/sock.h"

/*
 * The descriptor goes where NEW would not be taken off. A client that was told
 * yes a moment ago may have sent it: that is waited for, a little. And nobody is
 * told yes any more.
 */
void ns_pass_await_new(struct ns_sock *s, int fd);

#endif
