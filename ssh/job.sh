# Sourced, in code/, by the scripts that ssh/schedule.py writes, one for each window of tmux.
#
# INT, HUP, TERM and USR1 stop in good order: the run gets USR1 (mpirun passes that on to its ranks), saves and ends,
# and no other is started. QUIT ends it at once. So in the window Ctrl-C saves and stops, Ctrl-\ kills.

stopping=
interrupted=
worst=0
child=

on_stop() {
    stopping=1 interrupted=1
    [[ -z $child ]] || kill -USR1 "$child" 2> /dev/null
}

on_quit() {
    stopping=1 interrupted=1
    [[ -n $child ]] || return
    kill -TERM "$child" 2> /dev/null # mpirun then kills its ranks, which are in groups of their own
    sleep 2
    kill -KILL -- "-$child" 2> /dev/null
}

trap on_stop INT HUP TERM USR1
trap on_quit QUIT

# run INDEX PROGRAM...: appends to logs/INDEX.log; logs/INDEX.exit is empty while it runs, and then has its exit code.
run() {
    local log=../logs/$1.log exit_file=../logs/$1.exit code
    shift
    [[ -z $stopping ]] || return
    : > "$exit_file"
    : >> "$log"
    # In a session of its own, so that keys and the end of the window reach this script alone.
    setsid "$@" >> "$log" 2>&1 < /dev/null &
    child=$!
    [[ -z $stopping ]] || on_stop # it came before there was a child to tell
    tail --lines=10 --follow --pid="$child" "$log" &
    while
        interrupted=
        wait "$child"
        code=$?
        [[ -n $interrupted ]]
    do :; done # a signal ends `wait`, not the child
    child=
    echo "$code" > "$exit_file"
    ((code <= worst)) || worst=$code
}
