/*
 * What is large and hardly ever written lies behind all that is small. A page that parent or
 * child writes after a fork is copied, and a dozen such pages cost as much as a small process:
 * so what every fork and every session writes has to be on few of them.
 */
#ifndef NS_ENGINE_LARGE_H
#define NS_ENGINE_LARGE_H

#define NS_LARGE __attribute__((section(".lbss")))

/*
 * Code in each file that every forked child runs: all in one place (.text.hot). What a child has
 * not run yet, its kernel maps in pieces of 64 KiB, each of which costs a fault.
 */
#define NS_EACH_FORK __attribute__((hot))

#endif
