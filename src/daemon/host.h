/*
 * The broker of the processes that nsrun starts.
 *
 * It runs in a process of its own, beside the command and not above it: the
 * command takes nsrun's own place, so its process group, session, terminal,
 * signals, stops and exit status are what they would be without nsrun, by
 * construction and not by imitation. The host is nobody's child but init's (the
 * command must not find a child that it has not made), has a session of its own (so
 * no signal of the terminal reaches it), and holds nothing open of the command's.
 */
#ifndef NS_DAEMON_HOST_H
#define NS_DAEMON_HOST_H

/*
 * Starts it for this process and its descendants, and names it to them in
 * NAMESOCKET_BROKER; unless that names one already that answers, or is "none". It
 * ends some seconds after this process has and the last process that is connected
 * has gone. Returns 0 or a negative errno: there is none then, and the command can
 * do without.
 */
int ns_host_start(void);

#endif
