#!/bin/bash
# Every operation on the emulated GPU with its warps in other orders: whoever relies on
# others keeping up (a barrier too few) gets other results.  In one of them streams do their
# work at once instead of late.
# usage: tests/fault/gpu_orders.sh [BUILD_DIR]
# LIMIT: 300
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/lib.bash"

agrees() { # ORDER
    EMU_ORDER=$1 EMU_LATE=$(($1 != 2)) "$build/tests/device/parity-emu" --shapes 4 --seed "$1" >"$work/out" 2>&1
}

check last_warp_first agrees 1
check begun_elsewhere_each_round agrees 2
finish
