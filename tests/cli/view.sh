#!/bin/bash
# model.h5 opens in h5dump and h5py as whole tensors under readable names, wherever the
# checkpoint is moved, and holds the bytes that the manifest points to.
# shellcheck source=tests/fault/lib.bash
. "$(dirname "$0")/../fault/lib.bash"

tiny+=(--set train.steps=3 --set model.family=gpt2 --set model.kv_heads=0)
train 3 "$work/run"
check a_run_of_three_ranks [ -n "$(newest_of "$work/run")" ]
mv "$work/run" "$work/moved"
step=$(step_dir "$work/moved" 3)
view=$step/model.h5

ranges_of() { # lines "shard count offset" of tensor $1, from the manifest
    local index
    index=$(grep -o '{"name":"[^}]*"}' "$step/manifest.json" | grep -n "\"$1\"" | cut -d: -f1)
    sed -n "s/^{\"tensor\":$((index - 1)),\"shard\":\([0-9]*\),\"begin\":[0-9]*,\"count\":\([0-9]*\),\"offset\":\([0-9]*\),.*/\1 \2 \3/p" \
        "$step/manifest.json"
}
bytes_of() { # of tensor $1, put together from the shards
    local shard count offset
    ranges_of "$1" | while read -r shard count offset; do
        tail -c "+$((offset + 1))" "$(printf '%s/shard-%05d.h5' "$step" "$shard")" |
            head -c "$((count * 4))"
    done
}

dumped() { # the bytes of tensor $1 as h5dump reads them through the view
    h5dump -d "$1" -b LE -o "$work/dump" "$view" >"$work/out" 2>&1 &&
        [ -s "$work/dump" ] && bytes_of "$1" | cmp - "$work/dump" >>"$work/out"
}
check a_matrix_in_pieces_of_several_ranks [ "$(ranges_of weight/block.0.mlp.up.weight | wc -l)" -gt 1 ]
check h5dump_reads_a_matrix_whole dumped weight/block.0.mlp.up.weight
check h5dump_reads_a_vector_whole dumped weight/norm.bias
check h5dump_reads_the_optimizer_state dumped adam_v/embed.token
shape() { h5dump -H -d "$1" "$view" >"$work/out" 2>&1 && said "$2"; }
check a_matrix_has_two_dimensions shape weight/embed.token 'SIMPLE \{ \( 257, 64 \)'
check a_vector_has_one shape weight/norm.weight 'SIMPLE \{ \( 64 \)'

python=''
for candidate in /usr/bin/python3 python3; do
    "$candidate" -c 'import h5py' 2>/dev/null && python=$candidate && break
done
by_h5py() {
    bytes_of weight/block.1.attn.qkv.weight >"$work/want"
    "$python" - "$view" "$work/want" >"$work/out" 2>&1 <<'END'
import sys, h5py, numpy
view = h5py.File(sys.argv[1], "r")
names = []
view.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
kinds = {name.split("/")[0] for name in names}
assert kinds == {"weight", "adam_m", "adam_v"}, kinds
assert len(names) == 3 * (2 + 2 * 12 + 2), len(names)
tensor = view["weight/block.1.attn.qkv.weight"]
assert tensor.shape == (192, 64) and tensor.dtype == numpy.dtype("<f4"), tensor
assert tensor[:].tobytes() == open(sys.argv[2], "rb").read()
for name in names:
    assert numpy.isfinite(view[name][:]).all(), name
END
}
if [ -n "$python" ]; then check h5py_reads_all_tensors by_h5py; else skip h5py_reads_all_tensors "no h5py"; fi

# What HDF5 does not tell: a missing shard shows as NaN, and verify says so.
rm "$step/shard-00001.h5"
nan() {
    h5dump -d weight/block.0.mlp.up.weight "$view" >"$work/out" 2>&1
    said 'nan' && ends_with 3 "$kilorank" ckpt verify "$step" 2>/dev/null
}
check a_missing_shard_shows_as_nan_and_is_told nan
finish
