"""The two kernels of the sLSTM on a GPU: each a whole scan in one launch.

A program owns one head and some series. It keeps the four recurrent matrices of its head on chip
and streams the rest, one step ahead of its use. Equations 8 to 17 of Beck et al. (2024),
arXiv:2405.04517; derivation and budgets in `README.md`, the launchers in `slstm_triton`.

Pointers are raw and offsets 64 bits wide. Sizes and strides are arguments at run time that nothing
is specialised on, so that a new length or batch compiles nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from xlstm_ts.kernels.states import M_START

EMPTY = tl.constexpr(M_START)
INF = tl.constexpr(float("inf"))

# What differs from call to call: none of it may compile a kernel again.
RUNTIME = ["B", "T", "x_b", "x_t", "x_g", "x_h", "dh_b", "dh_t", "dh_h", "mask_b", "mask_t"]


@triton.jit
def _tanh(x):
    e = tl.exp(-2 * tl.abs(x))
    size = (1 - e) / (1 + e)  # 2 sigmoid(2 |x|) - 1
    return tl.where(x >= 0, size, -size)


@triton.jit
def _sigmoid(x):
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1 + e)


@triton.jit
def _load(pointer, offsets, ok):
    return tl.load(pointer + offsets, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _load_four(pointer, stride, offsets, ok):
    return (
        _load(pointer, offsets, ok),
        _load(pointer + stride, offsets, ok),
        _load(pointer + 2 * stride, offsets, ok),
        _load(pointer + 3 * stride, offsets, ok),
    )


@triton.jit
def _store(pointer, offsets, value, ok):
    tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask=ok)


@triton.jit
def _load_memories(pointer, stride, offsets, ok):
    # What lies outside is divided by as well: there n is 1.
    n = tl.load(pointer + stride + offsets, mask=ok, other=1.0)
    return _load(pointer, offsets, ok), n


@triton.jit(do_not_specialize=RUNTIME)
def forward_kernel(
    x_ptr, r_ptr, b_ptr, mask,
    h0_ptr, c0_ptr, n0_ptr, m0_ptr,
    h_ptr,
    hT_ptr, cT_ptr, nT_ptr, mT_ptr,
    gates_ptr, memories_ptr,
    B, T,
    x_b, x_t, x_g, x_h, mask_b, mask_t,
    D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, UNIT: tl.constexpr,
    PRECISION: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Scan forward; grid `(programs of ROWS series, H)`, state and saved tensors contiguous."""
    head, heads = tl.program_id(1), tl.num_programs(1)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]  # [ROWS, 1]
    unit = tl.arange(0, BLOCK)
    ok = (row < B) & (unit[None, :] < D)  # [ROWS, BLOCK]
    plane = tl.cast(B, tl.int64) * heads * D  # of one number per unit

    # h R^T: what comes in runs down, what goes out across.
    at_r, ok_r = unit[:, None] + unit[None, :] * D, (unit[:, None] < D) & (unit[None, :] < D)
    r_i, r_f, r_z, r_o = _load_four(r_ptr + head * 4 * D * D, D * D, at_r, ok_r)  # [BLOCK, BLOCK]
    r_i, r_f, r_z, r_o = r_i.to(DOT), r_f.to(DOT), r_z.to(DOT), r_o.to(DOT)
    at_b, ok_b = unit[None, :], unit[None, :] < D
    b_i, b_f, b_z, b_o = _load_four(b_ptr + head * D, heads * D, at_b, ok_b)  # [1, BLOCK]

    at_state = (row * heads + head) * D + unit[None, :]
    if h0_ptr is not None:
        h = _load(h0_ptr, at_state, ok)
        c = _load(c0_ptr, at_state, ok)
        n = _load(n0_ptr, at_state, ok)
        m = _load(m0_ptr, at_state, ok)
    else:
        h = tl.zeros([ROWS, BLOCK], tl.float32)
        c = tl.zeros([ROWS, BLOCK], tl.float32)
        n = tl.zeros([ROWS, BLOCK], tl.float32)
        m = tl.full([ROWS, BLOCK], EMPTY, tl.float32)

    x_b, x_t = tl.cast(x_b, tl.int64) * UNIT, tl.cast(x_t, tl.int64) * UNIT
    x_g, x_h = tl.cast(x_g, tl.int64) * UNIT, tl.cast(x_h, tl.int64) * UNIT
    at_x = row * x_b + unit[None, :]
    at_h = row * T * heads * D + unit[None, :]
    at_saved = row * D + unit[None, :]
    x_ptr += head * x_h
    h_ptr += head * D
    if gates_ptr is not None:
        gates_ptr += tl.cast(B, tl.int64) * head * D
        memories_ptr += tl.cast(B, tl.int64) * head * D
    at_mask = row * mask_b

    next_i, next_f, next_z, next_o = _load_four(x_ptr, x_g, at_x, ok)
    if mask is not None:
        next_present = tl.load(mask + at_mask, mask=row < B, other=0)  # [ROWS, 1]
    for t in range(T):
        i, f, z, o = next_i, next_f, next_z, next_o
        x_ptr += x_t
        more = t + 1 < T
        next_i, next_f, next_z, next_o = _load_four(x_ptr, x_g, at_x, ok & more)
        if mask is not None:
            present = next_present != 0
            mask += mask_t
            next_present = tl.load(mask + at_mask, mask=(row < B) & more, other=0)
            i = tl.where(present, i, 0.0)
            f = tl.where(present, f, 0.0)
            z = tl.where(present, z, 0.0)
            o = tl.where(present, o, 0.0)

        h_dot = h.to(DOT)
        i += b_i + tl.dot(h_dot, r_i, input_precision=PRECISION)
        f += b_f + tl.dot(h_dot, r_f, input_precision=PRECISION)
        z += b_z + tl.dot(h_dot, r_z, input_precision=PRECISION)
        o += b_o + tl.dot(h_dot, r_o, input_precision=PRECISION)

        e = tl.exp(-tl.abs(f))
        carried = tl.minimum(f, 0.0) - tl.log(1 + e) + m  # log sigmoid(f) + m
        gap = i - carried
        lesser = tl.exp(-tl.abs(gap))
        write = tl.where(gap >= 0, 1.0, lesser)  # (16)
        decay = tl.where(gap >= 0, lesser, 1.0)  # (17)
        z = _tanh(z)  # (11)
        o = _sigmoid(o)  # (14)
        n_new = decay * n + write  # (9)
        c_new = decay * c + write * z  # (8)
        h_new = o * c_new / n_new  # (10)
        m_new = tl.maximum(carried, i)  # (15)
        if gates_ptr is not None:
            forgotten = tl.where(f >= 0, e, 1.0) / (1 + e)  # sigmoid(-f)
            if mask is not None:
                gap = tl.where(present, gap, -INF)
                forgotten = tl.where(present, forgotten, 0.0)
            _store(gates_ptr, at_saved, gap, ok)
            _store(gates_ptr + plane, at_saved, forgotten, ok)
            _store(gates_ptr + 2 * plane, at_saved, z, ok)
            _store(gates_ptr + 3 * plane, at_saved, o, ok)
            _store(memories_ptr, at_saved, c, ok)
            _store(memories_ptr + plane, at_saved, n, ok)
            gates_ptr += 4 * plane
            memories_ptr += 2 * plane
        if mask is not None:
            h = tl.where(present, h_new, h)
            c = tl.where(present, c_new, c)
            n = tl.where(present, n_new, n)
            m = tl.where(present, m_new, m)
        else:
            h, c, n, m = h_new, c_new, n_new, m_new
        _store(h_ptr, at_h, h, ok)
        h_ptr += heads * D

    _store(hT_ptr, at_state, h, ok)
    _store(cT_ptr, at_state, c, ok)
    _store(nT_ptr, at_state, n, ok)
    _store(mT_ptr, at_state, m, ok)
    if gates_ptr is not None:
        _store(memories_ptr, at_saved, c, ok)
        _store(memories_ptr + plane, at_saved, n, ok)


@triton.jit(do_not_specialize=RUNTIME)
def backward_kernel(
    dh_ptr, r_ptr, mask,
    dhT_ptr, dcT_ptr, dnT_ptr,
    gates_ptr, memories_ptr,
    dx_ptr,
    dh0_ptr, dc0_ptr, dn0_ptr, dm0_ptr,
    B, T,
    dh_b, dh_t, dh_h, mask_b, mask_t,
    D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, UNIT: tl.constexpr,
    PRECISION: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Scan backward on the same grid, with the true gradient: only m is held fixed."""
    head, heads = tl.program_id(1), tl.num_programs(1)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]  # [ROWS, 1]
    unit = tl.arange(0, BLOCK)
    ok = (row < B) & (unit[None, :] < D)  # [ROWS, BLOCK]
    plane = tl.cast(B, tl.int64) * heads * D

    # d(gates) R: what went out runs down.
    at_r, ok_r = unit[:, None] * D + unit[None, :], (unit[:, None] < D) & (unit[None, :] < D)
    r_i, r_f, r_z, r_o = _load_four(r_ptr + head * 4 * D * D, D * D, at_r, ok_r)  # [BLOCK, BLOCK]
    r_i, r_f, r_z, r_o = r_i.to(DOT), r_f.to(DOT), r_z.to(DOT), r_o.to(DOT)

    at_state = (row * heads + head) * D + unit[None, :]
    if dhT_ptr is not None:
        dh = _load(dhT_ptr, at_state, ok)
        dc = _load(dcT_ptr, at_state, ok)
        dn = _load(dnT_ptr, at_state, ok)
    else:
        dh = tl.zeros([ROWS, BLOCK], tl.float32)
        dc = tl.zeros([ROWS, BLOCK], tl.float32)
        dn = tl.zeros([ROWS, BLOCK], tl.float32)

    dh_b, dh_t = tl.cast(dh_b, tl.int64) * UNIT, tl.cast(dh_t, tl.int64) * UNIT
    at_dh = row * dh_b + unit[None, :]
    at_dx = row * T * 4 * heads * D + unit[None, :]
    at_saved = row * D + unit[None, :]
    at_mask = row * mask_b
    last = tl.cast(T, tl.int64) - 1
    dh_ptr += tl.cast(dh_h, tl.int64) * head * UNIT + last * dh_t
    dx_ptr += head * D + last * 4 * heads * D
    gates_ptr += tl.cast(B, tl.int64) * head * D + last * 4 * plane
    memories_ptr += tl.cast(B, tl.int64) * head * D + (last + 1) * 2 * plane
    c, n = _load_memories(memories_ptr, plane, at_saved, ok)
    memories_ptr -= 2 * plane

    next_dh = _load(dh_ptr, at_dh, ok)
    next_gap, next_forgotten, next_z, next_o = _load_four(gates_ptr, plane, at_saved, ok)
    next_c, next_n = _load_memories(memories_ptr, plane, at_saved, ok)
    if mask is not None:
        mask += last * mask_t
        next_present = tl.load(mask + at_mask, mask=row < B, other=0)  # [ROWS, 1]
    for back in range(T):
        dh += next_dh
        gap, forgotten, z, o = next_gap, next_forgotten, next_z, next_o
        c_before, n_before = next_c, next_n
        dh_ptr -= dh_t
        gates_ptr -= 4 * plane
        memories_ptr -= 2 * plane
        more = back + 1 < T
        next_dh = _load(dh_ptr, at_dh, ok & more)
        next_gap, next_forgotten, next_z, next_o = _load_four(gates_ptr, plane, at_saved, ok & more)
        next_c, next_n = _load_memories(memories_ptr, plane, at_saved, ok & more)
        if mask is not None:
            present = next_present != 0
            mask -= mask_t
            next_present = tl.load(mask + at_mask, mask=(row < B) & more, other=0)
            past = tl.where(present, 0.0, dh)  # an absent step repeats the h before it
            dh = tl.where(present, dh, 0.0)
            n = tl.where(present, n, 1.0)  # empty before the first present step

        lesser = tl.exp(-tl.abs(gap))
        write = tl.where(gap >= 0, 1.0, lesser)
        decay = tl.where(gap >= 0, lesser, 1.0)
        slope = o / n
        h = slope * c
        dc += dh * slope
        dn -= dh * h / n
        d_i = (dc * z + dn) * write
        d_f = (dc * c_before + dn * n_before) * decay * forgotten
        d_z = dc * write * (1 - z * z)
        d_o = dh * h * (1 - o)
        _store(dx_ptr, at_dx, d_i, ok)
        _store(dx_ptr + heads * D, at_dx, d_f, ok)
        _store(dx_ptr + 2 * heads * D, at_dx, d_z, ok)
        _store(dx_ptr + 3 * heads * D, at_dx, d_o, ok)
        dx_ptr -= 4 * heads * D

        through_i = tl.dot(d_i.to(DOT), r_i, input_precision=PRECISION)
        through_f = tl.dot(d_f.to(DOT), r_f, input_precision=PRECISION)
        through_z = tl.dot(d_z.to(DOT), r_z, input_precision=PRECISION)
        through_o = tl.dot(d_o.to(DOT), r_o, input_precision=PRECISION)
        dh = (through_i + through_f) + (through_z + through_o)
        if mask is not None:
            dh += past
        dc *= decay
        dn *= decay
        c, n = c_before, n_before

    _store(dh0_ptr, at_state, dh, ok)
    _store(dc0_ptr, at_state, dc, ok)
    _store(dn0_ptr, at_state, dn, ok)
    _store(dm0_ptr, at_state, dc * c + dn * n, ok)
