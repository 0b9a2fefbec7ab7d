#!/bin/bash
# Adapters (LoRA): only they change and only they are stored; the same bits on any number of
# ranks, in every stage and after a stop; the weights they belong to are known again.
# usage: tests/cli/lora.sh [BUILD_DIR]
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"
cd "$work" || exit 1

# adapt RANKS DIR ARGUMENT... - without the model's settings: they come with train.init
adapt() {
    local ranks=$1 dir=$2 launch=()
    shift 2
    [ "$ranks" -gt 0 ] && launch=(mpirun -np "$ranks")
    timeout 60 "${launch[@]}" "$kilorank" train --run "$dir" --set train.init=base --set lora.rank=4 \
        --set train.steps=6 --set train.batch=8 --set train.micro_batch=2 --set optim.lr=1e-2 \
        --set optim.warmup=2 --set eval.every=0 --set checkpoint.every=3 --set snapshot.every=0 \
        --set data.held_out=0.01 "$@" \
        >out 2>&1 </dev/null
}
loss_of() { "$kilorank" eval "$@" 2>>out | sed 's/.*"loss": \([0-9.]*\).*/\1/'; }
train 0 base --set train.steps=20 --set data.held_out=0.01 || { cat out; exit 1; }
before=$(hash_of base)

learns() {
    adapt 0 one && said 'adapters of rank 4 on q,k,v,o,gate,up,down' &&
        python3 -c "import sys; a, b = map(float, sys.argv[1:]); assert a < b, (a, b)" \
            "$(loss_of one)" "$(loss_of base)"
}
check adapters_learn learns
first() { # with B zero the model is what it was
    adapt 0 still --set optim.lr=0 --set optim.min_lr=0 && [ "$(loss_of still)" = "$(loss_of base)" ]
}
check at_first_the_loss_is_that_of_the_weights first
small() { # three kinds of tensors of rank 4: nothing of the model is in there
    ! "$kilorank" ckpt show one | grep -q 'weight/.*\(embed\|norm\|attn\|mlp\)' &&
        [ "$(stat -c %s one/checkpoints/step-00000006/shard-00000.h5)" -lt \
            $(($(stat -c %s base/checkpoints/step-00000020/shard-00000.h5) / 4)) ]
}
check checkpoints_hold_adapters_alone small
check the_weights_keep_their_bits [ "$before" = "$(hash_of base)" ]
bits() {
    for how in 2:0 2:2 4:3; do
        adapt "${how%:*}" "run-$how" --set dist.shard="${how#*:}" &&
            [ "$(hash_of one)" = "$(hash_of "run-$how")" ] || return 1
    done
}
check any_ranks_and_stage_end_in_the_same_bits bits
stopped() {
    adapt 2 parts --set train.stop_after=3 --set dist.shard=3 && adapt 0 parts --set train.stop_after=0 &&
        said 'resumed at step 3' && [ "$(hash_of one)" = "$(hash_of parts)" ]
}
check a_run_that_stopped_goes_on_to_the_same_bits stopped
guard() { adapt 1 guard --set run.device=guard && [ "$(hash_of one)" = "$(hash_of guard)" ]; }
check device_memory_is_touched_by_kernels_alone guard
narrow() { # the model in bf16, adapters with masters in fp32
    adapt 0 narrow --set run.device=cpu --set run.precision=bf16 --set dist.shard=0 &&
        adapt 2 narrow-2 --set run.device=cpu --set run.precision=bf16 --set dist.shard=3 &&
        [ "$(hash_of narrow)" = "$(hash_of narrow-2)" ] && [ "$(hash_of narrow)" != "$(hash_of one)" ]
}
check bf16_has_its_own_bits_on_any_ranks narrow

moved() { # other weights are never taken for those that the adapters belong to
    mv base elsewhere && ends_with 2 adapt 0 one && said 'train.init = base: no valid checkpoint there' &&
        [ "$(loss_of one --set train.init=elsewhere)" = "$(loss_of run-2:0 --set train.init=elsewhere)" ] &&
        train 0 base --set train.steps=2 --set data.held_out=0.01 && ends_with 2 adapt 0 one && said 'other weights than those' &&
        rm -r base && mv elsewhere base
}
check weights_that_are_gone_or_others_are_one_line moved
goes_on() { # the run of those weights trains on: its older checkpoint is still found
    cp -r base full && train 0 full --set train.steps=22 --set data.held_out=0.01 &&
        [ "$(loss_of one --set train.init=full)" = "$(loss_of one)" ]
}
check the_checkpoint_is_found_among_newer_ones goes_on
refused() {
    ends_with 2 adapt 0 none --set train.init=one && said 'holds adapters and no model' &&
        ends_with 2 adapt 0 none --set lora.targets=qkv && said 'llama has: q,k,v,o,gate,up,down' &&
        ends_with 2 adapt 0 none --set train.init= && said 'lora.rank = 4 needs train.init' &&
        ends_with 2 adapt 0 one --set lora.rank=5 && said 'lora.rank' && [ ! -e none ]
}
check what_makes_no_sense_is_one_line refused

finish
