#!/bin/bash
# In a guest with two processors: the selftests where processors can meet, or those named.
guest=$(cd "${0%/*}" && pwd)
# Bounds on gaps are for time that is simulated with no cost of computing.
export KSFT_MACHINE_SLOW=yes MANY=2000
[ $# -gt 0 ] || set -- negotiates local_link_down peer_link_down black_hole both_move back_and_forth bulk \
    syn_cookies options_eaten time_wait netns_gone many
exec "$guest/selftests.sh" "$@"
