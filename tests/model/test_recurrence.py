"""Memories over time against sums written out by hand, then what must not change them."""

import math

import pytest
import torch

from salema.model.recurrence import EMA, ConvLSTM, Convolution, OnMaps


def clip(batch=1, time=7, channels=3, height=4, width=5, seed=0):
    return torch.randn(batch, time, channels, height, width, generator=seeded(seed))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def in_pieces(memory, x, cuts):
    """The same clip, cut into chunks."""
    pieces, state = [], None
    for start, stop in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        out, state = memory(x[:, start:stop], state)
        pieces.append(out)
    return torch.cat(pieces, 1), state


# ---------------------------------------------------------------- EMA, by hand


def test_ema_equals_the_weighted_sum_written_out_by_hand():
    values = torch.tensor([8.0, 4.0, 2.0, 6.0]).view(1, 4, 1, 1, 1)
    averages, state = EMA(0.25)(values, None)
    # .25*4 + .75*8 = 7;  .25*2 + .75*7 = 5.75;  .25*6 + .75*5.75 = 5.8125
    torch.testing.assert_close(averages.flatten(), torch.tensor([8.0, 7.0, 5.75, 5.8125]))
    assert state.item() == pytest.approx(5.8125)
    after, _ = EMA(0.25)(torch.tensor([1.8125]).view(1, 1, 1, 1, 1), state)
    assert after.item() == pytest.approx(0.25 * 1.8125 + 0.75 * 5.8125)


def test_a_rectified_ema_averages_with_the_relu_of_its_state():
    values = torch.tensor([-8.0, 4.0, -2.0, 6.0]).view(1, 4, 1, 1, 1)
    memory = EMA(0.25, rectified=True)
    averages, state = memory(values, None)
    # .25*4 + .75*0 = 1;  .25*-2 + .75*1 = .25;  .25*6 + .75*.25 = 1.6875
    torch.testing.assert_close(averages.flatten(), torch.tensor([-8.0, 1.0, 0.25, 1.6875]))
    after, _ = memory(-values[:, :1], state - 10)  # a negative state is nothing
    assert after.item() == pytest.approx(0.25 * 8)
    positive = clip().abs()
    torch.testing.assert_close(EMA(0.3, rectified=True)(positive, None), EMA(0.3)(positive, None))


def test_a_rectified_ema_of_a_clip_follows_the_recursion_at_every_place():
    x, memory = clip(batch=2), EMA(0.3, rectified=True)
    averages, state = memory(x, None)
    expected = x[:, 0]
    for step in range(x.shape[1]):
        expected = x[:, step] if step == 0 else 0.3 * x[:, step] + 0.7 * expected.clamp(min=0)
        torch.testing.assert_close(averages[:, step], expected)
    torch.testing.assert_close(state[:, 0], expected.permute(0, 2, 3, 1).flatten(1))


def test_ema_of_a_clip_follows_the_recursion_at_every_place():
    x, memory = clip(batch=2), EMA(0.3)
    averages, _ = memory(x, None)
    expected = x[:, 0]
    for step in range(x.shape[1]):
        expected = x[:, step] if step == 0 else 0.3 * x[:, step] + 0.7 * expected
        torch.testing.assert_close(averages[:, step], expected)


def test_the_first_frame_is_its_own_average():
    x = clip(time=1)
    torch.testing.assert_close(EMA(0.1)(x, None)[0], x)


def test_a_constant_clip_stays_as_it_is():
    x = clip(time=1).expand(-1, 40, -1, -1, -1)
    torch.testing.assert_close(EMA(0.05)(x, None)[0], x, atol=1e-5, rtol=0)


def test_alpha_one_is_no_memory():
    x, memory = clip(), EMA(1.0)
    averages, state = memory(x, None)
    torch.testing.assert_close(averages, x)
    torch.testing.assert_close(memory(x, state + 100)[0], x)
    assert float(memory.alpha) == 1.0


def test_alpha_one_has_a_finite_gradient():
    x = clip().requires_grad_()
    averages, _ = EMA(1.0)(x, None)
    averages.square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.56, 0.999])
def test_alpha_survives_its_logit(alpha):
    for learned in (False, True):
        assert EMA(alpha, learned).alpha.item() == pytest.approx(alpha, rel=1e-5)


def test_only_a_learned_alpha_is_a_parameter_and_both_are_stored():
    fixed, learned = EMA(0.2), EMA(0.2, learned=True)
    assert list(fixed.parameters()) == []
    assert [name for name, _ in learned.named_parameters()] == ["alpha_logit"]
    assert fixed.state_dict().keys() == learned.state_dict().keys() == {"alpha_logit"}
    assert learned.alpha_logit.item() == pytest.approx(math.log(0.2 / 0.8))


@pytest.mark.parametrize("rectified", [False, True])
def test_the_gradient_of_a_learned_alpha_equals_finite_differences(rectified):
    memory, x = EMA(0.3, True, rectified).double(), clip(time=5).double()
    weights = torch.randn(x.shape, generator=seeded(1)).double()

    def value(logit):
        """The same sum by the recursion, in double precision."""
        alpha, average, total = 1 / (1 + math.exp(-logit)), x[:, 0], 0.0
        for step in range(5):
            last = average.clamp(min=0) if rectified else average
            average = x[:, step] if step == 0 else alpha * x[:, step] + (1 - alpha) * last
            total += float((weights[:, step] * average).sum())
        return total

    first, state = memory(x[:, :2], None)
    second, _ = memory(x[:, 2:], state)
    (weights * torch.cat([first, second], 1)).sum().backward()
    logit, step = math.log(0.3 / 0.7), 1e-5
    expected = (value(logit + step) - value(logit - step)) / (2 * step)
    assert float(memory.alpha_logit.grad) == pytest.approx(expected, rel=1e-4)


# ---------------------------------------------------------------- EMA, invariances


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6], [3, 6], [1], [6], []])
def test_ema_is_the_same_however_a_clip_is_cut(cuts):
    memories = [EMA(0.1), EMA(0.9), EMA(1.0), EMA(0.4, learned=True)]
    for memory in (*memories, EMA(0.1, rectified=True), EMA(1.0, rectified=True)):
        x = clip(batch=2)
        whole, state = memory(x, None)
        pieces, last = in_pieces(memory, x, cuts)
        torch.testing.assert_close(pieces, whole)
        torch.testing.assert_close(last, state)


def test_ema_never_sees_the_future():
    x = clip()
    changed = x.clone()
    changed[:, 4] += 10
    before, after = EMA(0.1)(x, None)[0], EMA(0.1)(changed, None)[0]
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=0)
    torch.testing.assert_close(after[:, 4:] - before[:, 4:] > 0.1, torch.ones(1, 3, 3, 4, 5) > 0)


def test_ema_is_the_same_in_either_memory_layout():
    x = clip(batch=2, channels=8)
    last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (2, 7))
    torch.testing.assert_close(EMA(0.2)(last, None)[0], EMA(0.2)(x, None)[0])


def test_a_long_clip_with_a_small_alpha_stays_exact():
    x, memory = clip(time=400, channels=1, height=1, width=1), EMA(0.01)
    expected, average = [], x[0, 0].double()
    for step in range(400):
        average = average if step == 0 else 0.01 * x[0, step].double() + 0.99 * average
        expected.append(average.item())
    averages, _ = memory(x, None)
    assert averages.flatten().tolist() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("rectified", [False, True])
def test_ema_in_bf16_keeps_its_state_in_float32_and_does_not_drift(rectified):
    memory = EMA(0.02, rectified=rectified)
    x = clip(time=200).to(torch.bfloat16)
    exact, _ = memory(x.float(), None)
    rounded, state = in_pieces(memory, x, list(range(1, 200)))
    assert rounded.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    # A step of .02 is lost in a bf16 state of size one (its spacing is .008); not here.
    torch.testing.assert_close(state.flatten(), exact[:, -1].permute(0, 2, 3, 1).flatten(),
                               atol=1e-4, rtol=0)  # fmt: skip
    torch.testing.assert_close(rounded.float(), exact, atol=2e-2, rtol=0)


def test_ema_under_autocast_keeps_float32():
    x = clip()
    with torch.autocast("cpu", torch.bfloat16):
        averages, state = EMA(0.1)(x, None)
    assert averages.dtype == state.dtype == torch.float32
    torch.testing.assert_close(averages, EMA(0.1)(x, None)[0])


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be in"):
        EMA(alpha)


def test_a_learned_alpha_of_one_is_refused():
    with pytest.raises(ValueError, match="below 1"):
        EMA(1.0, learned=True)


# ---------------------------------------------------------------- ConvLSTM


def loop(memory, x, cell, hidden):
    """One frame at a time, with one convolution over input and hidden state together."""
    cells, hiddens = [], []
    for step in range(x.shape[1]):
        gates = memory.gates(torch.cat([x[:, step], hidden], 1))
        i, f, o, g = gates.chunk(4, 1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        cells.append(cell)
        hiddens.append(hidden)
    return torch.stack(cells, 1), torch.stack(hiddens, 1)


def convlstm(channels=3, hidden=4, decode="cell", seed=0):
    torch.manual_seed(seed)
    memory = ConvLSTM(channels, hidden, decode)
    torch.nn.init.normal_(memory.gates.bias)
    return memory


def test_convlstm_equals_a_literal_loop_from_a_zero_state():
    x, zeros = clip(batch=2), torch.zeros(2, 4, 4, 5)
    cells, hiddens = loop(convlstm(), x, zeros, zeros)
    decoded, (cell, hidden) = convlstm()(x, None)
    torch.testing.assert_close(decoded, cells)
    torch.testing.assert_close(cell, cells[:, -1])
    torch.testing.assert_close(hidden, hiddens[:, -1])
    torch.testing.assert_close(convlstm(decode="hidden")(x, None)[0], hiddens)
    torch.testing.assert_close(convlstm()(x, (zeros, zeros))[0], cells)


def test_the_gates_stand_in_the_order_enter_forget_out_new():
    memory = ConvLSTM(1, 1)
    torch.nn.init.zeros_(memory.gates.weight)
    with torch.no_grad():
        memory.gates.bias.copy_(torch.tensor([1.0, -1.0, 2.0, 0.5]))
    enter, forget, out = (1 / (1 + math.exp(-v)) for v in (1.0, -1.0, 2.0))
    first = enter * math.tanh(0.5)
    second = forget * first + enter * math.tanh(0.5)
    cells, (cell, hidden) = memory(torch.zeros(1, 2, 1, 1, 1), None)
    assert cells.flatten().tolist() == pytest.approx([first, second])
    assert cell.item() == pytest.approx(second)
    assert hidden.item() == pytest.approx(out * math.tanh(second))


def test_convlstm_starts_with_xavier_weights_and_zero_biases():
    torch.manual_seed(0)
    gates = ConvLSTM(32, 32).gates
    assert gates.weight.shape == (128, 64, 3, 3)
    assert not gates.bias.any()
    fan_in, fan_out = 64 * 9, 128 * 9
    assert gates.weight.std().item() == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.02)


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6], [3, 6], [6], []])
@pytest.mark.parametrize("decode", ["cell", "hidden"])
def test_convlstm_is_the_same_however_a_clip_is_cut(cuts, decode):
    x, memory = clip(batch=2), convlstm(decode=decode)
    whole, state = memory(x, None)
    pieces, last = in_pieces(memory, x, cuts)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(last, state)


def test_convlstm_never_sees_the_future():
    x = clip()
    changed = x.clone()
    changed[:, 4] += 10
    before, after = convlstm()(x, None)[0], convlstm()(changed, None)[0]
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=0)
    assert (after[:, 4:] - before[:, 4:]).abs().amax((0, 2, 3, 4)).min() > 1e-3


def test_convlstm_in_bf16_keeps_its_cell_in_float32():
    exact, _ = convlstm()(clip(), None)
    memory = convlstm().to(torch.bfloat16)
    rounded, (cell, hidden) = memory(clip(), None)
    assert rounded.dtype == hidden.dtype == torch.bfloat16
    assert cell.dtype == torch.float32
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0)


def test_convlstm_hands_gradients_back_through_time():
    x, memory = clip().requires_grad_(), convlstm()
    memory(x, None)[0][:, -1].sum().backward()
    assert (x.grad.abs().amax((0, 2, 3, 4)) > 0).all()
    assert torch.isfinite(memory.gates.weight.grad).all()


def test_convlstm_refuses_to_decode_anything_else():
    with pytest.raises(ValueError, match="'cell' or 'hidden', not 'both'"):
        ConvLSTM(1, 1, "both")


# ---------------------------------------------------------------- its control


def test_a_convolution_in_its_place_is_one_of_each_frame_without_activation():
    torch.manual_seed(0)
    control, x = Convolution(3, 5), clip(batch=2)
    assert not control.conv.bias.any()
    std = math.sqrt(2 / (9 * (32 + 64)))
    assert Convolution(32, 64).conv.weight.std().item() == pytest.approx(std, rel=0.03)
    torch.nn.init.normal_(control.conv.bias)
    y, state = control(x, None)
    for clips, out in zip(x, y, strict=True):
        torch.testing.assert_close(out, control.conv(clips))
    assert y.min() < 0 and state == ()
    assert control.bfloat16()(x, ())[0].dtype == torch.bfloat16


# ---------------------------------------------------------------- VideoSalGAN's memory


def maps(height, width, time=3):
    return torch.rand(1, time, 1, height, width, generator=seeded(0))


def test_a_map_memory_works_at_its_short_side_and_gives_maps_of_the_size_it_got():
    memory = OnMaps(ConvLSTM(1, 6), 6, 16)
    out, (cell, _) = memory(maps(32, 48), None)
    assert out.shape == (1, 3, 1, 32, 48)
    assert cell.shape == (1, 6, 16, 24)
    assert out.min() > 0 and out.max() < 1
    assert OnMaps(ConvLSTM(1, 6), 6)(maps(32, 48), None)[1][0].shape == (1, 6, 32, 48)
    assert OnMaps(ConvLSTM(1, 6), 6, 16)(maps(48, 32), None)[1][0].shape == (1, 6, 24, 16)


def test_a_map_memory_shrinks_by_area_and_decodes_the_cell_by_one_by_one():
    torch.manual_seed(0)
    memory = OnMaps(ConvLSTM(1, 6), 6, 4)
    x = maps(8, 12)
    small = x.unflatten(3, (4, 2)).unflatten(5, (6, 2)).mean((4, 6))  # 2x2 means
    cells, _ = memory.memory(small, None)
    logits = torch.einsum("btchw,c->bthw", cells, memory.project.weight.flatten())
    logits = logits + memory.project.bias
    large = torch.nn.functional.interpolate(logits, (8, 12), mode="bilinear")
    torch.testing.assert_close(memory(x, None)[0][:, :, 0], torch.sigmoid(large))


@pytest.mark.parametrize("cuts", [[1, 2], [2]])
def test_a_map_memory_is_the_same_however_a_clip_is_cut(cuts):
    torch.manual_seed(0)
    memory = OnMaps(ConvLSTM(1, 6), 6, 8)
    x = maps(16, 24)
    torch.testing.assert_close(in_pieces(memory, x, cuts)[0], memory(x, None)[0])
