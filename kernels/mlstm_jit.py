"""Device code of the mLSTM on a GPU; `mlstm_triton` launches it, `README.md` derives it.

`t` and `j` count the steps of a chunk of L, blocks `BK` and `BV` hold the head sizes `K` and `V`. A
program owns one head, one block of values and one segment, and keeps the memory of that block on
chip. Strides come divided by `UNIT`, so that the compiler knows a factor of them.
"""

import triton
import triton.language as tl

from xlstm_ts.kernels.states import M_START

EMPTY = tl.constexpr(M_START)
LOG2_E = tl.constexpr(1.4426950408889634)
# A gate that is shut: a step of it leaves exp(-1000), which is zero. Sums of such stay finite.
SHUT = tl.constexpr(-1000.0)
# Only met beyond the range of exp, where a query of zeros would read 0 / 0, or nothing is left.
TINY, MOST = tl.constexpr(2.0**-126), tl.constexpr(88.0)
INF = tl.constexpr(float("inf"))

# What differs from call to call: none of it may compile a kernel again.
STRIDED = ("q", "k", "v", "i", "f", "dh", "mask")
RUNTIME = ["T", "H", "span"] + [f"{name}_{axis}" for name in STRIDED for axis in "bth"]
# Pointers into the middle of a tensor, aligned or not as the batch will have it.
SLICES = ["n", "m", "n1", "m1", "dn1"]


@triton.jit
def _load(x, rows, cols, stride, seen, SIZE: tl.constexpr):
    """Read `x[rows, cols]`, zero where a row is not seen or a column is padding."""
    return tl.load(x + rows * stride + cols, mask=seen & (cols < SIZE), other=0.0)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr, DOT: tl.constexpr):
    return tl.dot(a.to(DOT), b.to(DOT), input_precision=PRECISION)


@triton.jit
def _gates(i, f, mask, t0, stop, i_t, f_t, mask_t, L: tl.constexpr, EXACT: tl.constexpr):
    """Return i, log f and presence of a chunk; an absent step has -inf, 0 and is not read."""
    t = tl.arange(0, L)
    present = t < stop - t0
    if mask is not None:
        present &= tl.load(mask + t0 * mask_t + t * mask_t, mask=present, other=0) != 0
    log_i = tl.load(i + t0 * i_t + t * i_t, mask=present, other=-INF).to(tl.float32)
    x = tl.load(f + t0 * f_t + t * f_t, mask=present, other=0.0).to(tl.float32)
    y = tl.exp(-tl.abs(x))
    log1p = tl.log(1.0 + y) + (y - ((1.0 + y) - 1.0)) / (1.0 + y)  # with what 1 + y rounds away
    log_f = tl.where(present, tl.minimum(x, 0.0) - log1p, 0.0)
    if not EXACT:
        log_f = tl.maximum(log_f, SHUT)
    return log_i, log_f, present


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _scales(log_i, log_f, M, EXACT: tl.constexpr):
    """Return the scale m of each row, its largest exponent but for rounding."""
    if EXACT:
        log_f = tl.maximum(log_f, SHUT)
    b = tl.cumsum(log_f, 0)
    return b + tl.maximum(M, tl.associative_scan(log_i - b, 0, _larger))


@triton.jit
def _kept(log_i, log_f, m_row, over, L: tl.constexpr, ROWS: tl.constexpr, EXACT: tl.constexpr):
    """Return what row t keeps of step j, `P` [L, L] times `over[t]`, and of it the end, `a` [L].

    `ROWS` is the axis of `P` that t runs along. Exact entries sum their own forget gates: a
    difference of running sums, which is one addition instead, loses a small sum behind a large one.
    """
    t = tl.arange(0, L)
    if ROWS == 0:
        past, later = t[:, None] >= t[None, :], t[:, None] > t[None, :]
    else:
        past, later = t[None, :] >= t[:, None], t[None, :] > t[:, None]
    if EXACT:
        between = tl.where(later, tl.expand_dims(log_f, 1 - ROWS), 0.0)
        D = tl.where(past, tl.cumsum(between, ROWS) + tl.expand_dims(log_i, ROWS), -INF)
        P = tl.exp(D - tl.expand_dims(m_row, 1 - ROWS)) * tl.expand_dims(over, 1 - ROWS)
        return P, tl.sum(between, ROWS) + log_i
    b = tl.cumsum(log_f, 0)
    row, step = (b - m_row) * LOG2_E + tl.log2(over), (log_i - b) * LOG2_E
    D = tl.where(past, tl.expand_dims(row, 1 - ROWS) + tl.expand_dims(step, ROWS), -INF)
    return tl.exp2(D), tl.sum(log_f, 0) - b + log_i


@triton.jit
def _clean(q, seen):
    """Return queries with zeros where an absent step holds no number."""
    return tl.where(seen | (tl.abs(q.to(tl.float32)) < INF), q, 0.0)


@triton.jit
def _product_sum(tile, dh, h, rows, cols, dh_t, h_t, inside, V: tl.constexpr, BV: tl.constexpr):
    """Return the sum of dh * h over the whole head; `tile` is the block of dh in hand."""
    if V <= BV:
        other = _load(h, rows, cols, h_t, inside, V).to(tl.float32)
        return tl.sum(tile.to(tl.float32) * other, 1)
    total = tl.sum(tile.to(tl.float32) * 0.0, 1)
    for first in tl.static_range(0, V, BV):
        part = _load(dh, rows, first + cols, dh_t, inside, V).to(tl.float32)
        total += tl.sum(part * _load(h, rows, first + cols, h_t, inside, V).to(tl.float32), 1)
    return total


@triton.jit
def _floor(m):
    return tl.maximum(tl.exp(tl.minimum(-m, MOST)), TINY)


@triton.jit
def _denominator_backward(product, d, m, scale: tl.constexpr):
    """Return scale / den, den times the gradient of d, and what the row gives to forget gates."""
    floor = _floor(m)
    above = tl.abs(d) > floor
    share = tl.where(above, tl.where(d > 0, -product, product), 0.0)
    return scale / tl.maximum(tl.abs(d), floor), share, tl.where(above, 0.0, product)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=SLICES)
def forward_kernel(
    q, k, v, i, f, mask,
    c0, n0, m0,
    h, d, mc,
    c, n, m, g,
    T, H, span,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    i_b, i_t, i_h, f_b, f_t, f_h, mask_b, mask_t,
    K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    UNIT: tl.constexpr, PRECISION: tl.constexpr, DOT: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Run over a segment of `span` steps; without `h` only the memory and its decay are written.

    Grid: (B * H, blocks of V, segments). The initial memories are `(segments, B, H, ...)`. With
    `h`, the last segment writes the final one; without, each writes its own, from an empty start.
    """
    row, block, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, head = (row // H).to(tl.int64), (row % H).to(tl.int64)
    start = segment.to(tl.int64) * span
    stop = tl.minimum(start + span, T)
    q_t, k_t, v_t = q_t * UNIT, k_t * UNIT, v_t * UNIT
    k += (batch * k_b + head * k_h) * UNIT
    v += (batch * v_b + head * v_h) * UNIT
    i += batch * i_b + head * i_h
    f += batch * f_b + head * f_h
    if mask is not None:
        mask += batch * mask_b
    if h is not None:
        q += (batch * q_b + head * q_h) * UNIT
        h += (batch * T * H + head) * V
        d += batch * T * H + head
        mc += batch * T * H + head

    t, keys, values = tl.arange(0, L), tl.arange(0, BK), block * BV + tl.arange(0, BV)
    in_keys, in_memory = keys < K, (keys[:, None] < K) & (values[None, :] < V)
    scale: tl.constexpr = K**-0.5
    slot = segment.to(tl.int64) * tl.num_programs(0) + row
    C, N = tl.zeros([BK, BV], tl.float32), tl.zeros([BK], tl.float32)
    M, G = tl.full([], EMPTY, tl.float32), tl.full([], 0.0, tl.float32)
    if c0 is not None:
        C = _load(c0 + slot * K * V, keys[:, None], values[None, :], V, keys[:, None] < K, V)
        N = tl.load(n0 + slot * K + keys, mask=in_keys, other=0.0)
        M = tl.load(m0 + slot)

    for x in range(tl.cdiv(stop - start, L)):
        t0 = start + x * L
        inside = t < stop - t0
        log_i, log_f, present = _gates(i, f, mask, t0, stop, i_t, f_t, mask_t, L, EXACT)
        decay = tl.sum(log_f, 0)
        ks = _load(k + t0 * k_t, t[:, None], keys[None, :], k_t, present[:, None], K)  # [L, BK]
        vs = _load(v + t0 * v_t, t[:, None], values[None, :], v_t, present[:, None], V)  # [L, BV]
        m_row = _scales(log_i, log_f, M, EXACT)
        P, a = _kept(log_i, log_f, m_row, t * 0.0 + 1.0, L, 0, EXACT)
        # The backward pass finds the scale of the memory in the last row of the chunk.
        m_next = tl.sum(tl.where(t == L - 1, m_row, 0.0), 0)
        if h is not None:
            qs = _load(q + t0 * q_t, t[:, None], keys[None, :], q_t, inside[:, None], K)
            if mask is not None:
                qs = _clean(qs, present[:, None])
            u = tl.exp(tl.cumsum(log_f, 0) + M - m_row)
            W = _dot(qs, tl.trans(ks), PRECISION, DOT) * P
            num = _dot(qs, C, PRECISION, DOT) * u[:, None] + _dot(W, vs, PRECISION, DOT)
            raw = (tl.sum(qs.to(tl.float32) * N[None, :], 1) * u + tl.sum(W, 1)) * scale
            over = scale / tl.maximum(tl.abs(raw), _floor(m_row))
            out = h + t0 * H * V + t[:, None] * (H * V) + values[None, :]
            tl.store(out, num * over[:, None], mask=inside[:, None] & (values[None, :] < V))
            tl.store(d + t0 * H + t * H, raw, mask=inside & (block == 0))
            tl.store(mc + t0 * H + t * H, m_row, mask=inside & (block == 0))
        kept = tl.exp(decay + M - m_next)
        written = ks.to(tl.float32) * tl.exp(a - m_next)[:, None]
        C = C * kept + _dot(tl.trans(written), vs, PRECISION, DOT)
        N = N * kept + tl.sum(written, 0)
        M = m_next
        G += decay

    if h is not None:
        slot = row.to(tl.int64)
    if (h is None) | (stop == T):
        to = c + slot * K * V + keys[:, None] * V + values[None, :]
        tl.store(to, C, mask=in_memory)
        tl.store(n + slot * K + keys, N, mask=in_keys & (block == 0))
        tl.store(m + slot, M, mask=block == 0)
        if h is None:
            tl.store(g + slot, G, mask=block == 0)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=SLICES)
def backward_kernel(
    q, k, v, i, f, mask,
    dh, h, d, mc,
    c0, n0, m0,
    c1, n1, m1,
    dc1, dn1,
    dq, dk, dv, di, df,
    dc0, dn0, dm0, g,
    T, H, span,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    i_b, i_t, i_h, f_b, f_t, f_h, dh_b, dh_t, dh_h, mask_b, mask_t,
    K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    UNIT: tl.constexpr, PRECISION: tl.constexpr, DOT: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Run over a segment, both ways: forwards for dq, in reverse for all else.

    Grid: (2 * B * H, blocks of V, segments); without `dq` there is only the reverse sweep, from a
    gradient of zero, and it writes the gradient of the memory at the start of its segment, and
    its decay `g`. `c0, n0, m0` are memories before, `c1, n1, m1` after each segment, and `dc1,
    dn1` the gradients of the latter. Blocks of V give shares of dq, dk, di, df and dm0: the
    outputs have one slice for each, and all that belongs to the denominator is in the first.
    """
    sweeps: tl.constexpr = 1 if dq is None else 2
    row, block, segment = tl.program_id(0) // sweeps, tl.program_id(1), tl.program_id(2)
    rows = tl.num_programs(0) // sweeps
    batch, head = (row // H).to(tl.int64), (row % H).to(tl.int64)
    start = segment.to(tl.int64) * span
    stop = tl.minimum(start + span, T)
    q_t, k_t, v_t, dh_t, h_t = q_t * UNIT, k_t * UNIT, v_t * UNIT, dh_t * UNIT, H * V
    q += (batch * q_b + head * q_h) * UNIT
    k += (batch * k_b + head * k_h) * UNIT
    v += (batch * v_b + head * v_h) * UNIT
    dh += (batch * dh_b + head * dh_h) * UNIT
    i += batch * i_b + head * i_h
    f += batch * f_b + head * f_h
    if mask is not None:
        mask += batch * mask_b
    first = batch * T * H + head
    h += first * V
    d += first
    mc += first
    # Shares of one output stand one after another, each as long as q, or as the gates.
    share_at = block.to(tl.int64) * rows * T + first

    t, keys, lanes = tl.arange(0, L), tl.arange(0, BK), tl.arange(0, BV)
    values = block * BV + lanes
    in_keys, in_memory = keys < K, (keys[None, :] < K) & (values[:, None] < V)
    scale: tl.constexpr = K**-0.5
    slot = segment.to(tl.int64) * rows + row
    memory = slot * K * V + keys[None, :] * V + values[:, None]  # [BV, BK]
    m_start = tl.full([], EMPTY, tl.float32)
    if c0 is not None:
        m_start = tl.load(m0 + slot)
    chunks = tl.cdiv(stop - start, L)
    if dq is None:
        chunks = tl.where(segment == 0, 0, chunks)  # no border stands before it

    if dq is not None and tl.program_id(0) % 2 == 1:
        C, N = tl.zeros([BV, BK], tl.float32), tl.zeros([BK], tl.float32)
        if c0 is not None:
            C = tl.load(c0 + memory, mask=in_memory, other=0.0)
            N = tl.load(n0 + slot * K + keys, mask=in_keys, other=0.0)
        M = m_start
        for x in range(chunks):
            t0 = start + x * L
            inside = t < stop - t0
            log_i, log_f, present = _gates(i, f, mask, t0, stop, i_t, f_t, mask_t, L, EXACT)
            ks = _load(k + t0 * k_t, t[:, None], keys[None, :], k_t, present[:, None], K)
            vs = _load(v + t0 * v_t, t[:, None], values[None, :], v_t, present[:, None], V)
            dhs = _load(dh + t0 * dh_t, t[:, None], values[None, :], dh_t, inside[:, None], V)
            product = _product_sum(dhs, dh + t0 * dh_t, h + t0 * h_t, t[:, None], lanes[None, :],
                                   dh_t, h_t, inside[:, None], V, BV)  # fmt: skip
            raw = tl.load(d + t0 * H + t * H, mask=inside, other=0.0)
            # An infinite scale takes the rows after the last step out of everything.
            m_row = tl.load(mc + t0 * H + t * H, mask=inside, other=INF)
            over, share, _ = _denominator_backward(product, raw, m_row, scale)
            share = tl.where(block == 0, share, 0.0)
            P, a = _kept(log_i, log_f, m_row, over, L, 0, EXACT)
            dS = (_dot(dhs, tl.trans(vs), PRECISION, DOT) + share[:, None]) * P
            u = tl.exp(tl.cumsum(log_f, 0) + M - m_row) * over
            grad = (_dot(dhs, C, PRECISION, DOT) + share[:, None] * N[None, :]) * u[:, None]
            grad += _dot(dS, ks, PRECISION, DOT)
            if mask is not None:
                qs = _load(q + t0 * q_t, t[:, None], keys[None, :], q_t, inside[:, None], K)
                finite = tl.abs(qs.to(tl.float32)) < INF
                grad = tl.where(present[:, None] | finite, grad, 0.0)
            to = dq + share_at * K + t0 * H * K + t[:, None] * (H * K) + keys[None, :]
            tl.store(to, grad, mask=inside[:, None] & in_keys[None, :])
            decay = tl.sum(log_f, 0)
            m_next = tl.load(mc + (tl.minimum(t0 + L, stop) - 1) * H)
            kept = tl.exp(decay + M - m_next)
            written = ks.to(tl.float32) * tl.exp(a - m_next)[:, None]
            C = C * kept + _dot(tl.trans(vs), written, PRECISION, DOT)
            N = N * kept + tl.sum(written, 0)
            M = m_next
    else:
        dC, dN = tl.zeros([BV, BK], tl.float32), tl.zeros([BK], tl.float32)
        later, G = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
        m_next = tl.load(mc + (stop - 1) * H)
        if m1 is not None:
            m_next = tl.load(m1 + slot)
        if dc1 is not None:
            dC = tl.load(dc1 + memory, mask=in_memory, other=0.0)
            dN = tl.load(dn1 + slot * K + keys, mask=in_keys & (block == 0), other=0.0)
            later += tl.sum(dC * tl.load(c1 + memory, mask=in_memory, other=0.0))
            later += tl.sum(dN * tl.load(n1 + slot * K + keys, mask=in_keys, other=0.0), 0)
        for x in range(chunks):
            t0 = start + (chunks - 1 - x) * L
            inside = t < stop - t0
            log_i, log_f, present = _gates(i, f, mask, t0, stop, i_t, f_t, mask_t, L, EXACT)
            qs = _load(q + t0 * q_t, t[:, None], keys[None, :], q_t, inside[:, None], K)
            if mask is not None:
                qs = _clean(qs, present[:, None])
            dhs = _load(dh + t0 * dh_t, t[:, None], values[None, :], dh_t, inside[:, None], V)
            product = _product_sum(dhs, dh + t0 * dh_t, h + t0 * h_t, t[:, None], lanes[None, :],
                                   dh_t, h_t, inside[:, None], V, BV)  # fmt: skip
            raw = tl.load(d + t0 * H + t * H, mask=inside, other=0.0)
            m_row = tl.load(mc + t0 * H + t * H, mask=inside, other=INF)
            over, share, lost = _denominator_backward(product, raw, m_row, scale)
            share = tl.where(block == 0, share, 0.0)
            M = tl.where(t0 > start, tl.load(mc + (t0 - 1) * H, mask=t0 > start), m_start)
            u = tl.exp(tl.cumsum(log_f, 0) + M - m_row) * over
            decay = tl.sum(log_f, 0)
            if dq is not None:
                P, a = _kept(log_i, log_f, m_row, over, L, 1, EXACT)  # [j, t]
                write = tl.exp(a - m_next)
                ks = _load(k + t0 * k_t, t[:, None], keys[None, :], k_t, present[:, None], K)
                vs = _load(v + t0 * v_t, t[:, None], values[None, :], v_t, present[:, None], V)
                W = _dot(ks, tl.trans(qs), PRECISION, DOT) * P
                dvs = _dot(ks, tl.trans(dC), PRECISION, DOT) * write[:, None]
                dvs += _dot(W, dhs, PRECISION, DOT)
                to = dv + first * V + t0 * h_t + t[:, None] * h_t + values[None, :]
                tl.store(to, dvs, mask=inside[:, None] & (values[None, :] < V))
                dS = (_dot(vs, tl.trans(dhs), PRECISION, DOT) + share[None, :]) * P
                dks = (_dot(vs, dC, PRECISION, DOT) + dN[None, :]) * write[:, None]
                dks += _dot(dS, qs, PRECISION, DOT)
                to = dk + share_at * K + t0 * H * K + t[:, None] * (H * K) + keys[None, :]
                tl.store(to, dks, mask=inside[:, None] & in_keys[None, :])
                dis = tl.sum(dks * ks.to(tl.float32), 1)
                change = tl.where(block == 0, lost, 0.0) - dis
                x_f = tl.load(f + t0 * f_t + t * f_t, mask=present, other=0.0).to(tl.float32)
                dfs = tl.cumsum(change, 0, reverse=True) + later
                dfs = tl.where(present, dfs / (1.0 + tl.exp(tl.minimum(x_f, MOST))), 0.0)
                later += tl.sum(change, 0)
                tl.store(di + share_at + t0 * H + t * H, dis, mask=inside)
                tl.store(df + share_at + t0 * H + t * H, dfs, mask=inside)
            kept = tl.exp(decay + M - m_next)
            read = qs.to(tl.float32) * u[:, None]
            dC = dC * kept + _dot(tl.trans(dhs), read, PRECISION, DOT)
            dN = dN * kept + tl.sum(read * share[:, None], 0)
            m_next = M
            G += decay
        if dc0 is not None:
            if dq is None:
                tl.store(dc0 + memory, dC, mask=in_memory)
                tl.store(dn0 + slot * K + keys, dN, mask=in_keys & (block == 0))
                tl.store(g + slot, G, mask=block == 0)
            elif segment == 0:
                tl.store(dc0 + memory, dC, mask=in_memory)
                tl.store(dn0 + slot * K + keys, dN, mask=in_keys & (block == 0))
                C0 = tl.load(c0 + memory, mask=in_memory, other=0.0)
                N0 = tl.load(n0 + slot * K + keys, mask=in_keys, other=0.0)
                # One sum over both axes: sm_100 rejects nested ones of a tile (triton 3.7).
                dm = tl.sum(dC * C0) + tl.sum(dN * N0, 0)
                tl.store(dm0 + block * rows + row, dm)


@triton.jit(do_not_specialize=["rows", "count", "SIZE"])
def join_kernel(x, m, g, m_out, rows, count, SIZE, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    """Turn what each segment adds into what stands at its border, in place.

    Grid: (B * H, blocks of SIZE). `x` is `(count + 1, B * H, SIZE)`, one slice for each border;
    the first of them is given, or in reverse the last. `m` holds the scale of each slice, `g` the
    sum of log f of each segment; forwards, the scales of the borders go to `m_out`.
    """
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < SIZE
    place = tl.program_id(0).to(tl.int64)
    if REVERSE:
        place += count.to(tl.int64) * rows
    X = tl.load(x + place * SIZE + at, mask=inside, other=0.0)
    M = tl.load(m + place)
    for _ in range(count - 1):
        if REVERSE:
            place -= rows
            own = tl.load(m + place)
            X *= tl.exp(tl.load(g + place) + own - M)
            X += tl.load(x + place * SIZE + at, mask=inside, other=0.0)
            M = own
        else:
            own, carried = tl.load(m + place + rows), tl.load(g + place) + M
            place += rows
            M = tl.maximum(carried, own)
            X *= tl.exp(carried - M)
            X += tl.load(x + place * SIZE + at, mask=inside, other=0.0) * tl.exp(own - M)
            tl.store(m_out + place, M)
        tl.store(x + place * SIZE + at, X, mask=inside)
