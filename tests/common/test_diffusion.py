"""Diffusion against closed forms, round trips and a planted set."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from common.diffusion import ConditionalUNet, LinearSchedule, sinusoidal_embedding


def randn(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


def closed_form(n_steps, first, last):
    """beta and alpha_bar, entry t of each for t = 0..T, in plain Python floats."""
    beta, alpha_bar = [0.0], [1.0]
    for t in range(1, n_steps + 1):
        beta.append(first + (last - first) * (t - 1) / max(n_steps - 1, 1))
        alpha_bar.append(alpha_bar[-1] * (1 - beta[-1]))
    return beta, alpha_bar


@pytest.mark.parametrize("n_steps", [1, 2, 600])
def test_schedule_is_the_closed_form(n_steps):
    schedule = LinearSchedule(n_steps, 1e-4, 0.02)
    beta, alpha_bar = closed_form(n_steps, 1e-4, 0.02)
    assert schedule.beta.tolist() == pytest.approx(beta, rel=1e-6)
    assert schedule.alpha_bar.tolist() == pytest.approx(alpha_bar, rel=1e-6)
    assert schedule.alpha_bar[0] == 1
    assert schedule.state_dict() == {}


def test_add_noise_is_its_formula_row_by_row():
    schedule = LinearSchedule(50, 1e-3, 0.05)
    _, alpha_bar = closed_form(50, 1e-3, 0.05)
    x0, noise, t = randn(4, 3, seed=1), randn(4, 3, seed=2), torch.tensor([1, 7, 25, 50])
    found = schedule.add_noise(x0, t, noise)
    for row, time in enumerate(t.tolist()):
        expected = math.sqrt(alpha_bar[time]) * x0[row] + math.sqrt(1 - alpha_bar[time]) * noise[row]
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(schedule.add_noise(x0, torch.zeros(4, dtype=torch.long), noise), x0), "time 0 is no noise"


def test_noise_and_its_removal_are_a_round_trip():
    schedule = LinearSchedule(600, 1e-4, 0.02)
    x0, noise = randn(600, 5, seed=1), randn(600, 5, seed=2)
    t = torch.arange(1, 601)
    found = schedule.estimate_start(schedule.add_noise(x0, t, noise), t, noise)
    # What is lost is rounding, magnified by 1 / sqrt(alpha_bar_T) = 20.
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("times", [[50, 0], [50, 31, 12, 1, 0], [7, 6, 5, 4, 3, 2, 1, 0]], ids=str)
def test_ddim_with_the_true_noise_goes_back_to_the_start(times):
    schedule = LinearSchedule(50, 1e-3, 0.05)
    x0, noise = randn(6, 4, seed=1), randn(6, 4, seed=2)
    x = schedule.add_noise(x0, torch.full((6,), times[0]), noise)
    for time, earlier in itertools.pairwise(times):
        x = schedule.ddim_step(x, time, earlier, noise)
        torch.testing.assert_close(x, schedule.add_noise(x0, torch.full((6,), earlier), noise), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x, x0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [1, 2, 25, 50])
def test_ddpm_step_has_the_mean_and_variance_of_the_posterior(t):
    """q(x_{t-1} | x_t, x_0) in its other form, with x_0 in the place of the noise (DDPM, Eqs. 6 and 7)."""
    schedule = LinearSchedule(50, 1e-3, 0.05)
    beta, alpha_bar = closed_form(50, 1e-3, 0.05)
    x0, noise, fresh = randn(6, 4, seed=1), randn(6, 4, seed=2), randn(6, 4, seed=3)
    x_t = schedule.add_noise(x0, torch.full((6,), t), noise)
    now, before = alpha_bar[t], alpha_bar[t - 1]
    mean = math.sqrt(before) * beta[t] / (1 - now) * x0 + math.sqrt(1 - beta[t]) * (1 - before) / (1 - now) * x_t
    deviation = math.sqrt(beta[t] * (1 - before) / (1 - now))
    still = schedule.ddpm_step(x_t, t, noise, torch.zeros(6, 4))
    torch.testing.assert_close(still, mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        schedule.ddpm_step(x_t, t, noise, fresh) - still, deviation * fresh, rtol=1e-3, atol=1e-5
    )


def test_the_last_ddpm_step_adds_nothing_and_ends_at_the_start():
    schedule = LinearSchedule(50, 1e-3, 0.05)
    x0, noise = randn(6, 4, seed=1), randn(6, 4, seed=2)
    x_1 = schedule.add_noise(x0, torch.ones(6, dtype=torch.long), noise)
    found = schedule.ddpm_step(x_1, 1, noise, 1e6 * torch.ones(6, 4))
    torch.testing.assert_close(found, x0, rtol=1e-4, atol=1e-5)


def test_times_are_told_apart():
    table = sinusoidal_embedding(600, 16)
    assert table.shape == (601, 16)
    for t in (0, 1, 300):
        for k in range(8):
            angle = t / 10_000 ** (2 * k / 16)
            assert table[t, k].item() == pytest.approx(math.sin(angle), abs=1e-4)
            assert table[t, 8 + k].item() == pytest.approx(math.cos(angle), abs=1e-4)
    assert torch.pdist(table).min() > 0.1


# The denoiser


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ConditionalUNet(8, [12, 20, 16], n_steps=30, time_width=10)


def test_the_denoiser_depends_on_every_input_and_on_its_own_row_alone(network):
    x, condition, t = randn(5, 8, seed=1), randn(5, 8, seed=2), torch.tensor([1, 5, 30, 5, 2])
    before = network(x, t, condition)
    assert before.shape == (5, 8)
    other = {
        "x": (x + torch.eye(5)[:, 2:3], t, condition),
        "time": (x, t + torch.tensor([0, 0, -10, 0, 0]), condition),
        "condition": (x, t, condition + torch.eye(5)[:, 2:3]),
    }
    for name, arguments in other.items():
        moved = (network(*arguments) - before).abs().amax(dim=1)
        assert moved[2] > 1e-3, name
        assert moved[[0, 1, 3, 4]].max() < 1e-6, name


def test_the_denoiser_is_the_one_drawn(network):
    """Down with time and condition at the first level, up with the skips joined, x itself joined last."""
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}

    def layer(name, x):
        return state[f"{name}.weight"] @ x + state.get(f"{name}.bias", 0)

    def silu(x):
        return x / (1 + torch.exp(-x))

    x, condition = randn(1, 8, seed=1), randn(1, 8, seed=2)
    time = layer("time", sinusoidal_embedding(30, 10)[7].double())
    start = x[0].double()
    first = silu(layer("down.0", start) + time + layer("condition", condition[0].double()))
    second = silu(layer("down.1", first))
    third = silu(layer("down.2", second))
    up = torch.cat([silu(layer("up.0", third)), second])
    up = torch.cat([silu(layer("up.1", up)), first])
    up = torch.cat([silu(layer("up.2", up)), start])
    found = network(x, torch.tensor([7]), condition)[0]
    torch.testing.assert_close(found.double(), layer("out", up), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("levels", [[6], [6, 4], [5, 5, 5, 5]], ids=str)
def test_any_depth_works_and_trains_all_of_its_parameters(levels):
    torch.manual_seed(0)
    network = ConditionalUNet(4, levels, n_steps=9)
    assert len(network.down) == len(network.up) == len(levels)
    network(randn(3, 4), torch.tensor([1, 4, 9]), randn(3, 4, seed=1)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_denoiser_learns_two_clusters_and_which_the_condition_names():
    torch.manual_seed(0)
    schedule = LinearSchedule(50, 1e-3, 0.2)
    network = ConditionalUNet(4, [16, 24], n_steps=50)
    centre, name = torch.tensor([1.0, -1.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(400):
        cluster = torch.randint(0, 2, (128, 1)) * 2.0 - 1
        t, noise = torch.randint(1, 51, (128,)), torch.randn(128, 4)
        noisy = schedule.add_noise(cluster * centre, t, noise)
        loss = F.mse_loss(network(noisy, t, cluster * name), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:5]) / 5 > 0.9, "an untrained network explains nothing of unit noise"
    assert sum(losses[-20:]) / 20 < 0.15
    # Generation from pure noise: the condition alone decides which cluster comes out.
    cluster = torch.tensor([1.0, -1.0]).repeat_interleave(50)[:, None]
    x = torch.randn(100, 4)
    with torch.no_grad():
        for time in range(50, 0, -5):
            x = schedule.ddim_step(x, time, time - 5, network(x, torch.full((100,), time), cluster * name))
    assert (x - cluster * centre).abs().mean() < 0.2
