# shellcheck shell=bash
# Boots what tree.sh has built; read by test.sh and bench.sh.
#
# boot CONFIG COMMAND becomes a guest (by exec: call it in a subshell) which runs the command. Its root is this machine's,
# read-only, or a copy of some of it. The output is the command's; the kernel's messages go to run-CONFIG/messages. After a
# dot, CONFIG may have a number, for another guest of the same configuration. The machine's own kernel is not touched. A
# signal to it ends the guest.

# Wall clock; a guest that hangs is a failure. No test's result depends on it otherwise.
limit=${NAMESOCKET_KERNEL_TIMEOUT:-1200}

# Time is simulated: it passes only when nobody computes. Sleeps take no time, and a busy machine does not show.
boot_uml() { # APPEND
    # The guest's memory is a file that code runs from. /dev/shm, the default, is small in some containers, where
    # several guests are to have room, and in some no code may run from it.
    local memory=$object shm clock=time-travel=inf-cpu
    shm=$(df --output=avail /dev/shm 2> /dev/null | tail -n 1)
    [ "${shm:-0}" -lt 3000000 ] || grep -q ' /dev/shm .*noexec' /proc/mounts || memory=/dev/shm
    # Two guests would have a time each; for them it is the real one.
    case ${run##*/} in run-peer*) clock="vec0:transport=fd,fd=20,vec=0 vec1:transport=fd,fd=21,vec=0" ;; esac
    # shellcheck disable=SC2086
    TMPDIR=$memory exec timeout -k 5 "$limit" "$object/linux" mem=512M root=/dev/root rootfstype=hostfs rootflags=/ ro \
        con=null con0=null,fd:2 con1=null,fd:1 $clock ns_out=/dev/tty1 $1 2> "$run/messages"
}

# boot_peers COMMAND: one guest with the series, and one without, each with its name for an argument
boot_peers() {
    local guest='. "$0/tree.sh"; . "$0/boot.sh"; boot "$1" "$2"'
    exec "$kernel/links.py" bash -c "$guest" "$kernel" peer "$1 patched" -- \
        bash -c "$guest > \"\$cache/run-peer-plain/output\" 2>&1" "$kernel" peer-plain "$1 plain"
}

# The guest's root file system for QEMU, as an initramfs: nothing is read while it runs, so that waiting for the host
# does not show either. The programs that the scripts of guest/ and the selftests call, at the paths that they have here.
pack() {
    local commands="bash sh mount umount mkdir rmdir mktemp mkfifo rm ln ls cat cp grep sed awk seq wc sort cut tr head
        tail sleep timeout dirname basename kill env true ip tc ss nstat nft sysctl" f
    {
        # shellcheck disable=SC2086
        for f in $(PATH=$PATH:/usr/sbin:/sbin type -P $commands) "$object/preserve" "$cache/cost"; do
            [ -f "$f" ] || continue
            echo "$f"
            ldd "$f" | grep -o '/[^ ]*'
        done
        find "$kernel/guest" "$cache/source/$selftests" -type f
    } | sed 's|^/\(bin\|sbin\|lib\|lib64\)/|/usr&|' | sort -u > "$run/files"
    {
        printf 'dir /%s 755 0 0\n' dev proc sys run mnt tmp etc var
        echo "nod /dev/console 600 0 0 c 5 1"
        echo "slink /var/run /run 777 0 0"
        printf 'slink /%s usr/%s 777 0 0\n' bin bin sbin sbin lib lib lib64 lib64
        while read -r f; do while f=${f%/*}; [ -n "$f" ]; do echo "dir $f 755 0 0"; done; done < "$run/files" | sort -u
        while read -r f; do echo "file $f $(realpath "$f") 755 0 0"; done < "$run/files"
    } > "$run/list"
    "$object/usr/gen_init_cpio" "$run/list" > "$run/root.cpio"
}

# icount: time is the count of instructions, one of them a nanosecond, and idle time is skipped; one processor runs at
# a time. For load there is none of this: processors run side by side.
boot_x86() { # APPEND
    # The second processor would measure its speed by reading the time again and again, which is what takes longest then.
    local clock="-icount shift=0,sleep=off -rtc clock=vm,base=2026-01-01" speed=lpj=4000000
    case ${run##*/} in run-load | run-kcsan) clock="-accel tcg,thread=multi" speed= ;; esac
    pack || exit 1
    # shellcheck disable=SC2086
    exec timeout -k 5 "$limit" qemu-system-x86_64 -nodefaults -display none -no-reboot -m 1G -smp "${cpus:-2}" $clock \
        -kernel "$object/arch/x86/boot/bzImage" -initrd "$run/root.cpio" \
        -serial file:"$run/messages" -serial stdio \
        -append "console=ttyS0 $speed rd$1 ns_out=/dev/ttyS1 rcupdate.rcu_cpu_stall_timeout=300"
}

boot() {
    local machine config=${1%-plain}
    config=${config%.[0-9]}
    machine=$(configuration "$config")
    object=$cache/$(object "$config") run=$cache/run-$1
    case $1 in *-plain) object=$object-plain ;; esac
    mkdir -p "$run"
    : > "$run/messages"
    # The guest ends by a panic, which is abort() in UML.
    ulimit -c 0
    "boot_${machine%% *}" "init=$kernel/guest/init kunit.enable=1 loglevel=7 panic=-1 ns_dir=$cache/source/$selftests \
ns_run=PRESERVE=$object/preserve,${2// /,}" < /dev/null
}
