/*
 * prctl, for PR_SET_SECCOMP. seccomp(2) has no function in libc: it comes by
 * syscall.c. A filter without a program is a question, which fails (EFAULT).
 */
#include "preload/sandbox.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "preload/interpose.h"

void ns_sandbox_seccomp(unsigned operation, const void *program)
{
    if (ns_ready() && (operation == SECCOMP_SET_MODE_STRICT || (operation == SECCOMP_SET_MODE_FILTER && program)))
        ns_quiet_begin();
}

void ns_sandbox_prctl(int option, unsigned long mode, const void *program)
{
    if (option == PR_SET_SECCOMP)
        ns_sandbox_seccomp(mode == SECCOMP_MODE_STRICT ? SECCOMP_SET_MODE_STRICT : SECCOMP_SET_MODE_FILTER, program);
}

/* Whatever the option takes, libc passes four on. */
NS_EXPORT int prctl(int option, ...)
{
    unsigned long a[4];
    va_list ap;

    va_start(ap, option);
    for (int i = 0; i < 4; i++)
        a[i] = va_arg(ap, unsigned long);
    va_end(ap);
    ns_sandbox_prctl(option, a[0], (const void *)a[1]);
    return ns_real.prctl(option, a[0], a[1], a[2], a[3]);
}
