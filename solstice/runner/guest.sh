#!/bin/sh
# The runner: runs the steps of one job inside the guest.  One file of POSIX sh that needs nothing beside it, because
# it runs wherever an image does: Linux, illumos, BSD; dash, bash, busybox ash, ksh93, mksh.
#
#   guest.sh                     as a boot script (cloud-init's user-data): copies itself, detaches, returns at once
#   guest.sh run [PORT [STATE]]  the runner itself, on the port that it finds, or on PORT
#   guest.sh checkout …          what the runner starts for the verb `checkout`
#
# The host's side, and the description of the protocol, is solstice/protocol/runner.py.  The runner decides nothing: it
# says hello, does what the host asks, and reports how it ended.  Who cleans up?  Nobody: the guest is thrown away.
#
# Two secrets come from the host.  The nonce, in front of every record, is only ever a variable of this shell: not
# exported, in no argument and on no disk.  The guard is kept in STATE/guard; a runner that finds it there knows that
# the guest was rebooted, shows the guard to be believed, and runs nothing.

set -u

PORT_NAME=org.solstice.runner.0
PATIENCE=60 # seconds to wait for a port that udev is late with, and for a host that went away
LF='
'

# A variable that came with the environment would stay exported whatever is assigned to it.
unset nonce guard in_nonce in_guard

# --- output ---------------------------------------------------------------------------------------------------------

# Print the arguments with one write(2), and with a builtin: arguments of a program are everybody's to read, and mksh has
# no printf of its own.
if [ "$(command -v printf)" = printf ]; then
    RS=$(printf '\036')
    say() { printf %s "$*"; }
else
    RS=$(print -n '\036')
    say() { print -rn -- "$*"; }
fi

# One record.  It is one write of less than 1 KiB, which neither a virtio port nor a terminal lets others write into:
# what a process left over from a step prints meanwhile comes before it or after it.
record() { say "$RS$nonce$1$LF" >&3; }

# Set $at to the guest's own time, in whole seconds since the epoch; to null where `date` has no %s.
look_at_clock() {
    at=$(date +%s 2>/dev/null)
    case $at in
    '' | 0* | *[!0-9]*) at=null ;;
    esac
}

# For whoever looks at the console, because there is nobody else to tell.
complain() { { say "solstice runner: $*$LF" >/dev/console; } 2>/dev/null; }

# --- the port -------------------------------------------------------------------------------------------------------

# Set $port to the virtio port's device; by its number where there is no udev to make the named link.
find_virtio() {
    for port in "/dev/virtio-ports/$PORT_NAME" "/dev/vtcon/$PORT_NAME"; do
        [ -c "$port" ] && return
    done
    for entry in /sys/class/virtio-ports/*; do
        port=/dev/${entry##*/}
        [ -c "$port" ] && read -r label <"$entry/name" && [ "$label" = "$PORT_NAME" ] && return
    done
    return 1
}

# Open $1 as descriptor 3, once and for both directions: a virtio port gives EBUSY to a second open.  `command` keeps a
# failing exec from ending the shell.
open_port() {
    { command exec 3<>"$1"; } 2>/dev/null || return 1
    case $1 in
    /dev/vport* | /dev/virtio-ports/*) return 0 ;;
    esac
    # Each flag by name, because `raw` leaves ICRNL and IXON alone on illumos.  This fails for a serial port that has
    # no hardware: Linux has a /dev/ttyS1 on every machine, and opens it.
    if stty raw -echo -iexten -icrnl -inlcr -igncr -istrip -ixon -ixoff cs8 -parenb clocal 115200 <&3 2>/dev/null; then
        return 0
    fi
    exec 3<&-
    return 1
}

# True if the second serial port may be the carrier: not on a machine with a virtio console whose port is only late.
serial_allowed() {
    [ "$1" -ge $((PATIENCE / 2)) ] || ! grep -q 0x0003 /sys/bus/virtio/devices/*/device 2>/dev/null
}

find_port() {
    tries=0
    while [ "$tries" -lt "$PATIENCE" ]; do
        if find_virtio; then
            open_port "$port" && return
        elif serial_allowed "$tries"; then
            for port in /dev/ttyS1 /dev/term/b /dev/cuau1; do
                [ -c "$port" ] && open_port "$port" && return
            done
        fi
        sleep 1
        tries=$((tries + 1))
    done
    return 1
}

# --- what the host says ---------------------------------------------------------------------------------------------

# Read one message into the variables in_NAME.  Unknown names are set and never looked at: a later host may send more.
# The host's quoting makes each line an assignment, whatever the value; the check is for noise on a serial line.
next_message() {
    in_verb='' in_nonce='' in_guard='' in_url='' in_sha='' in_ref='' in_index='' in_env_size='' in_script_size=''
    while [ -z "$in_verb" ]; do
        next_line
        case $line in
        *=\'*\')
            case ${line%%=*} in
            '' | *[!a-z_]*) ;;
            *) eval "in_$line" ;;
            esac
            ;;
        esac
    done
}

next_line() { IFS= read -r line || exit 1; }

# Carry the host's bytes from the port to the pipe that the main loop reads.  It must be a pipe: bash reads ahead when it
# reads lines from a terminal, which a serial port is, and would take the start of a counted block.  It also empties a
# serial port, which has no flow control here, faster than a shell can.
# A virtio port without a listener on the host's side reads as at its end; the listener may come back.
# `dd bs=` passes each short read on as it is; busybox's `cat` uses sendfile(2), which waits for more.
pump() {
    absent=0
    while [ "$absent" -lt "$PATIENCE" ]; do
        dd bs=4096 <&3 2>/dev/null
        absent=$((absent + 1))
        sleep 1
    done
}

# receive SIZE FILE: the next SIZE bytes, and not one more, because the next message follows them.
# `dd` counts reads, not bytes, and a read from a pipe is short whenever less has come: so ask for as many blocks as
# can never be too much, count what came, and ask again.  With full reads that is one process for the whole blocks
# and one, byte by byte, for the last 511: a script of 256 KiB costs 1000 reads, not 262144.
receive() {
    : >"$2"
    left=$1
    while [ "$left" -gt 0 ]; do
        block=512
        [ "$left" -ge "$block" ] || block=1
        dd ibs="$block" obs=4096 count=$((left / block)) >>"$2" 2>/dev/null
        now=$(($1 - $(wc -c <"$2")))
        [ "$now" -lt "$left" ] || exit 1
        left=$now
    done
}

# --- what the runner does -------------------------------------------------------------------------------------------

# Find how a step gets a session of its own ($session), so that `cancel` reaches all of it and nothing else, and how it
# gets back SIGINT and SIGQUIT ($signals): a shell starts what runs in the background with both ignored, which breaks
# test suites that try their own Ctrl-C, and no POSIX shell can undo it.
find_tools() {
    session='' signals=''
    for tool in setsid setpgrp; do # the second is illumos'
        command -v "$tool" >/dev/null 2>&1 && session=$tool && break
    done
    env --default-signal=INT,QUIT true 2>/dev/null && signals='env --default-signal=INT,QUIT'
}

# supervise INDEX COMMAND…: run COMMAND in the work directory with the port as its output, and send a record before it
# and one, with its exit code, after it.  It runs in the background, so that the main loop is free to read `cancel`, which arrives here as TERM.
supervise() {
    child='' cancelled='' asked=''
    trap 'cancelled=1 asked=1; terminate' TERM
    index=$1
    shift
    cd "$state/work" || exit
    look_at_clock
    record "{\"type\":\"step_start\",\"index\":$index,\"at\":$at}"
    # shellcheck disable=SC2086  # both are commands with arguments, or nothing
    $session $signals "$@" </dev/null >&3 2>&1 3<&- &
    child=$!
    [ -z "$cancelled" ] || terminate
    # `wait` also returns when the trap has run; the status is the command's only if it has not.
    while cancelled='' && wait "$child"; code=$? && [ -n "$cancelled" ]; do :; done
    # a shell that has just forked can lose a TERM: what is left of a cancelled step is killed with it
    [ -z "$asked" ] || kill -s KILL -- "-$child" 2>/dev/null || :
    # killed by signal N is 128+N for most, but 256+N in ksh93
    [ "$code" -le 255 ] || code=$((code % 128 + 128))
    look_at_clock
    record "{\"type\":\"step_end\",\"index\":$index,\"exit_code\":$code,\"at\":$at}"
}

terminate() {
    [ -n "$child" ] || return 0
    { kill -s TERM -- "-$child" || kill -s TERM "$child"; } 2>/dev/null
}

begin() {
    [ -z "$running" ] || wait "$running"
    supervise "$@" &
    running=$!
}

# Keep the guard, and see to it that a reboot brings the runner back: cloud-init runs user-data once per instance.
# A machine that is reset, not shut down, loses what was not synced; nobody needs to wait for that.
remember() {
    (umask 077 && say "$guard$LF" >"$state/guard")
    hooks=/var/lib/cloud/scripts/per-boot
    if [ -n "$resident" ] && [ -d "$hooks" ]; then
        cp "$self" "$hooks/solstice-runner" && chmod 755 "$hooks/solstice-runner"
    fi
    sync &
}

welcome() {
    [ -z "$nonce" ] || return 0
    nonce=$in_nonce
    guard=$in_guard
    remember
}

# The environment is a file of exports, gone before the step begins.  `-e` ends a step at its first failing command.
step() {
    files=$state/step-$in_index
    (umask 077 && receive "$in_env_size" "$files.env" && receive "$in_script_size" "$files.sh") || exit 1
    # shellcheck disable=SC2016  # meant for the step's own shell
    begin "$in_index" \
        sh -c '. "$1"; rm -f "$1"; exec sh -e "$2"' sh "$files.env" "$files.sh"
}

cancel() {
    [ -z "$running" ] || kill -s TERM "$running" 2>/dev/null
}

# The barrier: what was written before has left the guest in order, so this record comes last.  Then keep the port open,
# and still, until the host is done with it.
bye() {
    record '{"type":"bye"}'
    while IFS= read -r line; do :; done
    exit 0
}

# run PORT STATE: the life of the runner.
run() {
    umask 022
    state=$2
    nonce='' running='' resident=''
    case ${HOME-} in
    '' | /) HOME=/root && export HOME ;;
    esac
    if [ -n "$1" ]; then
        open_port "$1" || exit 1
    else
        resident=1
        find_port || { complain "no port $PORT_NAME and no second serial port"; exit 1; }
    fi
    if [ -f "$state/guard" ]; then
        IFS= read -r nonce <"$state/guard"
        record '{"type":"rebooted"}'
        exit 0
    fi
    mkdir -p "$state/work" || { complain "cannot make $state/work"; exit 1; }
    find_tools
    system=$(uname -s -r -m | tr -cd ' -~' | tr -d '\042\134')
    look_at_clock
    record "{\"type\":\"hello\",\"protocol\":1,\"system\":\"$system\",\"at\":$at}"
    pump | serve
}

# The main loop: do what the host says, as it says it.
serve() {
    while :; do
        next_message
        case $in_verb in
        welcome) welcome ;;
        checkout) begin -1 sh "$self" checkout "$in_url" "$in_sha" "$in_ref" ;;
        step) step ;;
        cancel) cancel ;;
        bye) bye ;;
        esac
    done
}

# checkout URL SHA REF: make the current directory, which is empty, a clone that stands at exactly that commit.
checkout() {
    if ! command -v git >/dev/null 2>&1; then
        echo "solstice: cannot check out $1: there is no git in this image; install it in the image"
        exit 127
    fi
    export GIT_TERMINAL_PROMPT=0
    echo "solstice: checking out $2 of $1"
    git init -q && git remote add -- origin "$1" || exit 1
    # Only one commit, if the server gives any that it is asked for; else all that its branches, tags and REF reach.
    if ! git fetch -q --depth 1 -- origin "$2"; then
        echo "solstice: fetching everything, because the server did not give the one commit"
        git fetch -q --tags -- origin && { [ -z "$3" ] || git fetch -q -- origin "$3"; } || exit 1
    fi
    git -c advice.detachedHead=false checkout -q --detach "$2" -- || exit 1
    found=$(git rev-parse HEAD)
    [ "$found" = "$2" ] && return
    echo "solstice: asked for commit $2, but got $found"
    exit 1
}

# Detach from the boot script that this is: `cloud-init status --wait` in a step waits for it to return.  The copy is
# made because the seed may be unmounted.  Making the directory is the lock that keeps a second start out; it lies where
# a reboot empties.  The runner itself is a child of the session's leader: a leader that opens a serial port
# would get it as its controlling terminal.
detach() {
    for base in /run /var/run /tmp; do
        [ -d "$base" ] && [ -w "$base" ] && break
    done
    mkdir -m 755 "$base/solstice-runner" 2>/dev/null || exit 0
    copy=$base/solstice-runner/guest.sh
    cp "$self" "$copy" || exit 1
    PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export PATH
    find_tools
    cd / || exit 1
    # shellcheck disable=SC2016,SC2086  # meant for the inner shell; a command or nothing
    $session sh -c 'sh "$1" run &' sh "$copy" </dev/null >/dev/null 2>&1 &
}

case $0 in
/*) self=$0 ;;
*) self=$PWD/$0 ;;
esac
case ${1-} in
'') detach ;;
run) run "${2-}" "${3-/var/lib/solstice}" ;;
checkout) checkout "$2" "$3" "$4" ;;
*) echo "usage: guest.sh [run [PORT [STATE]]]" >&2 && exit 2 ;;
esac
