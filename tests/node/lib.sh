# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by the scripts of this folder, after tests/lib.sh.
node=$cache/run/node # what `up` brings up is there
node_address=10.88.0.1
outside_address=10.88.0.2 # this machine's, seen from the node
cgroup=paddock-node

# first_process DIR: that of the node's namespaces, by its number outside of them.
first_process() {
  local unshare children
  unshare=$(<"$1/node.pid") && children=$(<"/proc/$unshare/task/$unshare/children") && [[ -n $children ]] &&
    echo "${children%% *}"
}

# on_node COMMAND…: runs it on the node.
on_node() { nsenter --target "$(first_process "$node")" --all -- "$@"; }

# cgroups: the folders in which the node's are, one where all controllers are in one tree.
cgroups() {
  local tree
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo "/sys/fs/cgroup/$cgroup"
  else
    for tree in /sys/fs/cgroup/*/cgroup.procs; do echo "$(dirname "$tree")/$cgroup"; done
  fi
}
