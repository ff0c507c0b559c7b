"""Server optimisers, against torch's own and against the formulas of Reddi et al."""

from __future__ import annotations

import pytest
import torch

from strategies.optimizers.fedadagrad import FedAdagrad
from strategies.optimizers.fedadam import FedAdam
from strategies.optimizers.fedavg import FedAvg
from strategies.optimizers.fedavgm import FedAvgM
from strategies.optimizers.fedyogi import FedYogi
from strategies.optimizers.schedule import scheduled

ALL = [FedAvg(), FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()]


def updates(rounds: int, d: int = 20) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(d, generator=g) for _ in range(rounds)]


def ours(server, rounds=6):
    params, state = torch.ones(20), server.init(20)
    for r, update in enumerate(updates(rounds), start=1):
        params, state = server.step(state, params, update, r, rounds)
    return params


def torchs(make, rounds=6):
    params = torch.ones(20, requires_grad=True)
    optimizer = make([params])
    for update in updates(rounds):
        params.grad = -update  # an update already points downhill
        optimizer.step()
    return params.detach()


@pytest.mark.parametrize(
    ("server", "make"),
    [
        (FedAvg(lr=0.5), lambda p: torch.optim.SGD(p, lr=0.5)),
        (FedAvgM(lr=0.5, momentum=0.8), lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.8)),
        (FedAdagrad(lr=0.05, tau=1e-6), lambda p: torch.optim.Adagrad(p, lr=0.05, eps=1e-6)),
        (FedAdam(lr=0.02), lambda p: torch.optim.Adam(p, lr=0.02)),
        (
            FedAdam(lr=0.02, beta1=0.5, beta2=0.9, tau=1e-3),
            lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.5, 0.9), eps=1e-3),
        ),
    ],
)
def test_same_as_torch(server, make):
    torch.testing.assert_close(ours(server), torchs(make))


@pytest.mark.parametrize("kind", ["adam", "yogi", "adagrad"])
def test_algorithm_2_of_reddi_et_al(kind):
    lr, b1, b2, tau = 0.1, 0.9, 0.99, 1e-3
    server = {
        "adam": FedAdam(lr, b1, b2, tau, bias_correction=False),
        "yogi": FedYogi(lr, b1, b2, tau),
        "adagrad": FedAdagrad(lr, b1, tau),
    }[kind]
    x, m, v = torch.ones(20).double(), torch.zeros(20).double(), torch.zeros(20).double()
    for update in updates(6):
        u = update.double()
        m = b1 * m + (1 - b1) * u
        if kind == "adam":
            v = b2 * v + (1 - b2) * u**2
        elif kind == "yogi":
            v = v - (1 - b2) * u**2 * torch.sign(v - u**2)
        else:
            v = v + u**2
        x = x + lr * m / (v.sqrt() + tau)
    torch.testing.assert_close(ours(server).double(), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("server", ALL, ids=lambda s: type(s).__name__)
def test_steps_are_pure_and_state_resumes(server):
    first, second = updates(2)
    params, state = torch.ones(20), server.init(20)
    kept = {k: v.clone() for k, v in state.items()}
    moved, after = server.step(state, params, first, 1, 2)
    assert torch.equal(params, torch.ones(20))
    assert all(torch.equal(state[k], kept[k]) for k in kept)
    saved = {k: v.clone() for k, v in after.items()}
    again = server.step(saved, moved.clone(), second, 2, 2)[0]
    assert torch.equal(again, server.step(after, moved, second, 2, 2)[0])


def test_schedule():
    rates = [scheduled(0.1, 4, 0.5, r, 10) for r in (1, 2, 4, 5, 10)]
    expected = [0.1 * 0.25 * 0.95, 0.1 * 0.5 * 0.9, 0.1 * 0.8, 0.1 * 0.75, 0.1 * 0.5]
    assert rates == pytest.approx(expected)
    assert scheduled(0.1, 0, 0.0, 1, 1) == 0.1


@pytest.mark.parametrize("server", ALL, ids=lambda s: type(s).__name__)
def test_warmup_shortens_the_first_steps(server):
    warm = type(server)(warmup_rounds=4)
    (update,) = updates(1)
    full = server.step(server.init(20), torch.zeros(20), update, 1, 10)[0]
    short = warm.step(warm.init(20), torch.zeros(20), update, 1, 10)[0]
    torch.testing.assert_close(short, full / 4)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (FedAvg, {"lr": 0.0}, "lr: must be > 0"),
        (FedAvgM, {"momentum": 1.0}, "momentum: must be < 1"),
        (FedAdam, {"tau": 0.0}, "tau: must be > 0"),
        (FedAdam, {"warmup_rounds": -1}, "warmup_rounds: must be >= 0"),
        (FedYogi, {"decay": 1.5}, "decay: must be <= 1"),
    ],
)
def test_settings_out_of_range(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
