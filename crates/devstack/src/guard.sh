# The watchdog of one local stack: kills what the stack started and removes its temporary directories once the process
# that started the stack is gone, however it went. It reads its orders from standard input; the only writer is that
# process, so end of file means that it has ended. Orders, one per line:
#   watch <pid> <start time> <signal>   a process-group leader, and the signal that ends it in good order
#   forget <pid>                        it has ended and been waited for
#   remove <directory>                  remove it at the end, if it holds the file .sluice-temporary
# A pid alone could have been given to a stranger meanwhile; with the start time of /proc/<pid>/stat it cannot.
trap '' HUP INT TERM QUIT
leaders=
dirs=
newline='
'

while read -r verb rest; do
  case $verb in
    watch) set -- $rest; leaders="$leaders $1:$2:$3" ;;
    forget)
      kept=
      for leader in $leaders; do [ "${leader%%:*}" = "$rest" ] || kept="$kept $leader"; done
      leaders=$kept ;;
    remove) dirs="$dirs$rest$newline" ;;
  esac
done

# Sets $alive to the pid:start of every process that still lives and belongs to a leader: the leader, its group, its
# children (PostgreSQL's backends have groups of their own), and everything found by an earlier call.
known=
scan() {
  trusted=
  for leader in $leaders; do
    pid=${leader%%:*}; start=${leader#*:}; start=${start%%:*}
    if { read -r line <"/proc/$pid/stat"; } 2>/dev/null; then
      set -- ${line##*) }
      [ "${20}" = "$start" ] || continue
    fi
    trusted="$trusted $pid"
  done
  alive=
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    pid=${line%% *}
    set -- ${line##*) }
    [ "$1" = Z ] && continue
    found=
    case " $known " in *" $pid:${20} "*) found=1 ;; esac
    for leader in $trusted; do
      if [ "$pid" = "$leader" ] || [ "$2" = "$leader" ] || [ "$3" = "$leader" ]; then found=1; fi
    done
    [ -n "$found" ] && alive="$alive $pid:${20}"
  done
  known=$alive
}

scan
for leader in $leaders; do
  pid=${leader%%:*}
  case " $trusted " in *" $pid "*) ;; *) continue ;; esac
  kill -s "${leader##*:}" -- "-$pid" 2>/dev/null
  kill -s CONT -- "-$pid" 2>/dev/null
done
for process in $alive; do kill -s CONT "${process%%:*}" 2>/dev/null; done

# Seconds by the clock, not rounds: on a busy machine one look at all processes takes longer than the pause.
now() { read -r seconds _ </proc/uptime; seconds=${seconds%.*}; }
now
began=$seconds
while scan; [ -n "$alive" ]; do
  now
  if [ $((seconds - began)) -ge 5 ]; then
    for process in $alive; do kill -s KILL "${process%%:*}" 2>/dev/null; done
  fi
  [ $((seconds - began)) -ge 9 ] && break
  sleep 0.1
done

IFS=$newline
for dir in $dirs; do
  [ -e "$dir/.sluice-temporary" ] && rm -rf -- "$dir"
done
exit 0
