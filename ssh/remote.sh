# What ssh/schedule.py asks of a host. Sent to `bash -s -- FOLDER COMMAND ...` by ssh; FOLDER has runs/.
#
#   gpus                 one line each: "gpu INDEX, UUID, MiB used", "busy UUID", "window NAME"; fails without nvidia-smi
#   submissions          names, the oldest first
#   start NAME           a tmux session, with a window for each of its scripts
#   liveness NAME        "running" or "ended"
#   status [NAME ...]    for each run: NAME, INDEX, state, where, last line of its log, with tabs between
#   stop NAME SECONDS    save and end; kill what is left after so many seconds

folder=$1
shift

# A server of its own, without the user's settings: some would keep windows open after their end.
tm() { tmux -L vsml -f /dev/null "$@"; }

session() { tr . _ <<< "$1"; } # as tmux names it

alive() { tm has-session -t "=$(session "$1")" 2> /dev/null; }

liveness() { alive "$1" && echo running || echo ended; }

gpus() {
    command -v nvidia-smi > /dev/null || { echo "no nvidia-smi" >&2; return 1; }
    local devices busy
    devices=$(nvidia-smi --query-gpu=index,uuid,memory.used --format=csv,noheader,nounits) &&
        busy=$(nvidia-smi --query-compute-apps=gpu_uuid --format=csv,noheader) || { echo "$devices" >&2; return 1; }
    sed 's/^/gpu /' <<< "$devices"
    sed 's/^/busy /' <<< "$busy"
    tm list-windows -a -F 'window #{window_name}' 2> /dev/null || true # there may be no server yet
}

submissions() {
    local list
    for list in "$folder"/runs/*/runs.tsv; do
        [[ ! -e $list ]] || basename "$(dirname "$list")"
    done
}

start() {
    local here=$folder/runs/$1 script name command=()
    command -v tmux > /dev/null || { echo "tmux is not installed on this machine" >&2; return 1; }
    ! alive "$1" || { echo "$1 still runs" >&2; return 1; }
    rm -f "$here"/logs/*.exit
    for script in "$here"/queue-*.sh; do
        name=$(sed -n 's/^# window: //p' "$script")
        if ((${#command[@]})); then
            command+=(";" new-window -d -t "=$(session "$1"):" -n "$name" bash "$script")
        else
            command=(new-session -d -s "$(session "$1")" -n "$name" bash "$script")
        fi
    done
    tm "${command[@]}"
}

state() { # INDEX FOLDER, in the folder of the submission
    local code
    if [[ ! -e logs/$1.exit ]]; then
        [[ $running ]] && echo waiting || echo "not started"
        return
    fi
    code=$(< "logs/$1.exit")
    case $code in
        "") [[ $running ]] && echo running || echo "lost" ;;
        # 138: USR1 came before launch.py was there to save
        0 | 138) [[ $code == 0 && (-e $2/complete || ! -e $2/config.yaml) ]] && echo complete || echo stopped ;;
        *) echo "failed ($code)" ;;
    esac
}

status() {
    local name
    for name in "$@"; do
        [[ ! -e $folder/runs/$name ]] || (status_of "$name") # in a shell of its own: it changes the folder
    done
}

status_of() {
    local running= index run where
    alive "$1" && running=1
    cd "$folder/runs/$1" || return
    while IFS=$'\t' read -r index run where; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$index" "$(state "$index" "$run")" "$where" \
            "$(tail -n 1 "logs/$index.log" 2> /dev/null | tr '\t\r' '  ' | cut -c 1-150)"
    done < runs.tsv
}

signal() { tm list-panes -s -t "=$(session "$1")" -F '#{pane_pid}' | xargs -r kill "-$2"; }

gone_within() { # NAME SECONDS
    local end=$((SECONDS + $2))
    while alive "$1"; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

stop() {
    [[ -e $folder/runs/$1 ]] || { echo "no submission $1" >&2; return 1; }
    alive "$1" || return 0
    signal "$1" USR1
    gone_within "$1" "$2" && return
    echo "not ended within $2 s: killed"
    signal "$1" QUIT
    gone_within "$1" 10 || tm kill-session -t "=$(session "$1")"
}

"$@" < /dev/null # not from the rest of this script
