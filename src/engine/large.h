/*
 * What is large and hardly ever written lies behind all that is small. A page that parent or
 * child writes after a fork is copied, and a dozen such pages cost as much as a small process:
 * so what every fork and every session writes has to be on few of them.
 */
#ifndef NS_ENGINE_LARGE_H
#define NS_ENGINE_LARGE_H

#define NS_LARGE __attribute__((section(".lbss")))

#endif
