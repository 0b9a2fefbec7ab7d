#!/usr/bin/env python3
"""gpu-peer - what PyTorch does on this card: rows "name value" for speed --peer.
usage: scripts/gpu-peer.py [--small] [attention] [steps] [MODEL...]      (default: both, all models)

attention-D-T-forward, -backward   TFLOP/s of the best back end of scaled_dot_product_attention
step-MODEL                         tokens/s of a training step: torch.compile, fused AdamW, bf16 products

The same shapes, FLOP and batches as in tests/device/speed.  Lines with # say what was tried.
--small runs tiny shapes on a CPU, to see that this program works."""
import gc
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

SMALL = "--small" in sys.argv
DEVICE = "cpu" if SMALL else "cuda"
ROUNDS = 2 if SMALL else 11
MICRO_BATCHES = 4


def wait():
    if not SMALL:
        torch.cuda.synchronize()


def seconds(run):
    """Median over the rounds of a block of about a fiftieth of a second."""
    run()
    wait()
    start = time.perf_counter()
    run()
    wait()
    calls = 1 if SMALL else max(1, int(0.02 / (time.perf_counter() - start)))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


# ---- attention ------------------------------------------------------------------------------

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
if SMALL:
    BACKENDS = {"math": SDPBackend.MATH}


def attention_times(heads, kv, dim, seq, backend):
    batch = 1 if SMALL else 16384 // seq
    q = torch.randn(batch, heads, seq, dim, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    k, v = (torch.randn(batch, kv, seq, dim, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in "kv")
    with sdpa_kernel([backend]):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        grad = torch.randn_like(out)
        forward = seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
        backward = seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))
    flops = 2.0 * batch * seq * heads * dim * seq
    return flops / forward / 1e12, 2.5 * flops / backward / 1e12


def attention():
    shapes = [(64, 8, 128), (32, 8, 64)] if not SMALL else [(2, 1, 64)]
    for seq in [2048, 4096, 8192, 16384] if not SMALL else [40]:
        for heads, kv, dim in shapes:
            best = [0.0, 0.0]
            for name, backend in BACKENDS.items():
                try:
                    found = attention_times(heads, kv, dim, seq, backend)
                except RuntimeError as why:
                    print(f"# {name} does not take heads of {dim}, T {seq}: {(str(why) or 'no reason given').splitlines()[0]}")
                    continue
                print(f"# {name} {dim} {seq}: forward {found[0]:.1f}, backward {found[1]:.1f} TFLOP/s")
                best = [max(a, b) for a, b in zip(best, found)]
            for way, rate in zip(("forward", "backward"), best):
                if rate:
                    print(f"attention-{dim}-{seq}-{way} {rate:.2f}", flush=True)


# ---- steps ----------------------------------------------------------------------------------

# name: llama?, layers, dim, heads, kv heads, ffn, vocabulary, context, micro-batch, weights in bf16?
# GPT-2's vocabulary of 50257 is padded as its users do, for odd matrices are slow.
MODELS = {
    "gpt2-124M": (False, 12, 768, 12, 12, 3072, 50304, 1024, 32, False),
    "llama-1.4B": (True, 24, 2048, 16, 16, 5632, 32000, 2048, 8, False),
    "llama-8B": (True, 32, 4096, 32, 8, 14336, 128256, 8192, 1, True),
}
if SMALL:
    MODELS = {"tiny": (True, 2, 64, 1, 1, 96, 96, 32, 1, False), "tiny-gpt2": (False, 2, 64, 1, 1, 96, 96, 32, 1, False)}


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(nn.Module):
    def __init__(self, llama, dim, heads, kv, ffn):
        super().__init__()
        self.llama, self.heads, self.kv, self.size = llama, heads, kv, dim // heads
        norm = nn.RMSNorm if llama else nn.LayerNorm
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.qkv = nn.Linear(dim, (heads + 2 * kv) * self.size, bias=not llama)
        self.out = nn.Linear(dim, dim, bias=not llama)
        self.up = nn.Linear(dim, (2 if llama else 1) * ffn, bias=not llama)
        self.down = nn.Linear(ffn, dim, bias=not llama)

    def forward(self, x, cos, sin):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, -1, self.size).transpose(1, 2).split((self.heads, self.kv, self.kv), 1)
        if self.llama:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv != self.heads)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        u = self.up(self.norm2(x))
        if self.llama:
            gate, u = u.chunk(2, -1)
            return x + self.down(F.silu(gate) * u)
        return x + self.down(F.gelu(u, approximate="tanh"))


class Model(nn.Module):
    def __init__(self, llama, layers, dim, heads, kv, ffn, vocab, context, recompute):
        super().__init__()
        self.token = nn.Embedding(vocab, dim)
        self.place = None if llama else nn.Embedding(context, dim)
        self.blocks = nn.ModuleList(Block(llama, dim, heads, kv, ffn) for _ in range(layers))
        self.norm = (nn.RMSNorm if llama else nn.LayerNorm)(dim)
        self.head = nn.Linear(dim, vocab, bias=False)
        if not llama:
            self.head.weight = self.token.weight
        self.recompute = recompute
        size = dim // heads
        angle = torch.outer(torch.arange(context), 10000.0 ** (-torch.arange(0, size, 2) / size))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, token, label):
        x = self.token(token)
        if self.place is not None:
            x = x + self.place.weight[: token.shape[1]]
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        for block in self.blocks:
            x = checkpoint(block, x, cos, sin, use_reentrant=False) if self.recompute else block(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), label.flatten())


def step_seconds(llama, layers, dim, heads, kv, ffn, vocab, context, micro, narrow, recompute):
    torch.manual_seed(1)
    with torch.device(DEVICE):
        model = Model(llama, layers, dim, heads, kv, ffn, vocab, context, recompute)
    if narrow:
        model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=not SMALL)
    run = model if SMALL else torch.compile(model)
    token = torch.randint(vocab, (MICRO_BATCHES, micro, context + 1), device=DEVICE)

    def step():
        for part in token:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=not narrow):
                loss = run(part[:, :-1], part[:, 1:])
            (loss / MICRO_BATCHES).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    for _ in range(1 if SMALL else 3):
        loss = step().item()
    times = []
    for _ in range(1 if SMALL else 5):
        start = time.perf_counter()
        step()
        wait()
        times.append(time.perf_counter() - start)
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss is {loss}")
    return statistics.median(times)


def steps():
    asked = [name for name in MODELS if name in sys.argv[1:]] or list(MODELS)
    for name in asked:
        *shape, context, micro, narrow = MODELS[name]
        for recompute in (False, True):
            try:
                spent = step_seconds(*shape, context, micro, narrow, recompute)
            except torch.OutOfMemoryError:
                spent = None
            if spent is None:
                print(f"# {name}{', recomputing' if recompute else ''} does not fit")
                torch.compiler.reset()  # what it compiled holds on to the model
                gc.collect()
                torch.cuda.empty_cache()
                continue
            print(f"# {name}: weights in {'bf16' if narrow else 'fp32'}{', recomputing blocks' if recompute else ''}")
            print(f"step-{name} {MICRO_BATCHES * micro * context / spent:.1f}", flush=True)
            break


if __name__ == "__main__":
    wanted = [word for word in sys.argv[1:] if word in ("attention", "steps")] or ["attention", "steps"]
    if not SMALL and not torch.cuda.is_available():
        sys.exit("gpu-peer: error: this PyTorch sees no GPU")
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_float32_matmul_precision("high")
    print(f"# PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
    for word in wanted:
        globals()[word]()
