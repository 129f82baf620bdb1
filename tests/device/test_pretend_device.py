"""The pretend device computes what the CPU does, and refuses what CUDA refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.device.pretend import NAME, PretendTensor, Watch, pretend_device

CPU = torch.arange(12.0).reshape(3, 4)


@pytest.fixture
def x(watch: Watch) -> Tensor:
    """0 to 11 in 3 rows, on the device."""
    there = CPU.to(NAME)
    watch.synchronizations.clear()
    return there


def test_what_is_made_on_the_device_is_on_the_device(watch: Watch) -> None:
    made = [
        torch.zeros(2, device=NAME), torch.arange(3, device=NAME), torch.tensor([1.0], device=NAME),
        torch.randn(2, device=NAME), torch.linspace(0, 1, 3, device=NAME), CPU.to(NAME),
        torch.full((2,), 3, device=NAME), torch.eye(2, device=NAME), torch.as_tensor(CPU.numpy(), device=NAME),
        torch.zeros_like(CPU, device=NAME), torch.triu_indices(3, 3, device=NAME),
        CPU.new_zeros(2, device=NAME), torch.nn.Linear(2, 2, device=NAME).weight,
    ]  # fmt: skip
    for tensor in made:
        assert isinstance(tensor, PretendTensor)
        assert str(tensor.device) == f"{NAME}:0"
        assert not tensor.is_cuda
    assert torch.arange(3, device=NAME).tolist() == [0, 1, 2]
    assert torch.zeros_like(made[0], device="cpu").device.type == "cpu"


def test_outside_its_use_there_is_no_such_device() -> None:
    with pretend_device():
        assert torch.accelerator.is_available()
    assert not torch.accelerator.is_available()


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + CPU,
        lambda x: x.add_(CPU),
        lambda x: CPU.clone().add_(x),
        lambda x: torch.zeros(()).add_(x[0, 0]),
        lambda x: x @ CPU.T,
        lambda x: torch.cat([x, CPU]),
        lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
        lambda x: torch.nn.functional.linear(x, CPU),
        lambda x: torch.nn.functional.embedding(torch.tensor([0]), x),
        lambda x: CPU[torch.tensor([0, 1], device=NAME)],
        lambda x: x.index_put_((torch.tensor([0]),), CPU[0]),
        lambda x: x.gather(0, torch.zeros(1, 4, dtype=torch.long)),
        lambda x: torch.where(CPU > 3, x, x),
        lambda x: torch.bmm(x[None], x.T[None], out=torch.empty(1, 3, 3)),
        lambda x: torch.equal(x, CPU),
        lambda x: torch.nn.Linear(4, 2).to(NAME)(CPU),
    ],
)
def test_tensors_of_two_devices_are_refused(mix: Callable[[Tensor], Any], x: Tensor) -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mix(x)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x * torch.tensor(2.0),
        lambda x: torch.tensor(2.0) * x,
        lambda x: x[torch.tensor([0, 2])],
        lambda x: x[CPU > 3],
        lambda x: torch.where(x > 3, x, torch.tensor(0.0)),
        lambda x: x.masked_fill(x > 3, torch.tensor(0.0)),
        lambda x: x.clone().copy_(CPU.T.reshape(3, 4)),
        lambda x: x.clone().index_put_((torch.tensor([0]),), torch.tensor(5.0)),
    ],
)
def test_what_cuda_lets_mix_gives_what_the_cpu_gives(
    mix: Callable[[Tensor], Tensor], x: Tensor
) -> None:
    found = mix(x)
    assert isinstance(found, PretendTensor)
    assert torch.equal(found.cpu(), mix(CPU))


def test_numpy_takes_nothing_from_the_device(x: Tensor) -> None:
    for take in (lambda: x.numpy(), lambda: np.asarray(x), lambda: np.add(x, 1)):
        with pytest.raises(TypeError, match="can't convert pretend:0 device type tensor to numpy"):
            take()


def test_a_generator_of_the_cpu_draws_nothing_on_the_device(x: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    for draw in (
        lambda: torch.randn(3, generator=generator, device=NAME),
        lambda: x.normal_(generator=generator),
        lambda: torch.multinomial(x.softmax(0), 2, generator=generator),
    ):
        with pytest.raises(RuntimeError, match="Expected a 'pretend' device type for generator"):
            draw()


def test_what_it_draws_leaves_the_generator_of_the_cpu_as_it_was(watch: Watch) -> None:
    before = torch.random.get_rng_state()
    assert not torch.equal(torch.randn(3, device=NAME), torch.randn(3, device=NAME))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_views_and_writes_in_place_are_seen_from_both_sides(x: Tensor) -> None:
    row, transposed = x[1], x.T
    assert row.add_(100) is row
    assert transposed.stride() == (1, 4)
    assert transposed[0].tolist() == [0, 104, 8]
    out = torch.empty(0, device=NAME)
    assert torch.add(x, 1, out=out) is out
    assert out.shape == (3, 4)
    assert x.clone().unsqueeze_(0).shape == (1, 3, 4)


def test_modules_go_there_and_back(watch: Watch) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(4, 8))
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = module(images)
    there = copy.deepcopy(module).to(NAME)
    torch.testing.assert_close(there(images.to(NAME)).cpu(), expected)
    assert there.to(torch.bfloat16)[0].weight.dtype == torch.bfloat16
    assert there(images.to(NAME, torch.bfloat16)).dtype == torch.bfloat16
    back = copy.deepcopy(module).to(NAME).to("cpu")
    assert not isinstance(back[0].weight, PretendTensor)
    assert torch.equal(back(images), expected)


def test_derivatives_are_those_of_the_cpu(x: Tensor) -> None:
    def both(v: Tensor) -> list[Tensor]:
        leaf = v.detach().requires_grad_()
        (first,) = torch.autograd.grad((leaf**3).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), leaf)
        forward = torch.func.jvp(lambda w: (w**3).sum(1), (v,), (v,))[1]
        return [first.detach(), second, forward, torch.func.vmap(torch.sum)(v)]

    for found, expected in zip(both(x), both(CPU), strict=True):
        assert isinstance(found, PretendTensor)
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize(
    ("wait", "operations"),
    [
        (lambda x: x.sum().item(), ["_local_scalar_dense"]),
        (lambda x: float(x[0, 0]), ["_local_scalar_dense"]),
        (lambda x: x.tolist(), ["_to_copy"]),
        (lambda x: x.cpu(), ["_to_copy"]),
        (lambda x: x.to("cpu", non_blocking=True), []),
        (lambda x: CPU.to(NAME), ["copy_"]),
        (lambda x: CPU.to(NAME, non_blocking=True), []),
        (lambda x: torch.tensor([1, 2], device=NAME), ["copy_"]),
        (lambda x: torch.zeros(3, 4).copy_(x), ["copy_"]),
        (lambda x: x[x > 3], ["index"]),
        (lambda x: x[torch.tensor([0])], ["index"]),
        (lambda x: x[torch.zeros(1, dtype=torch.long, device=NAME)], []),
        (lambda x: x.nonzero(), ["nonzero"]),
        (lambda x: torch.equal(x, x), ["equal"]),
        (lambda x: (x @ x.T).softmax(-1).to(torch.float64) * 2, []),
        (lambda x: torch.zeros(3, device=NAME), []),
    ],
)
def test_waiting_for_the_device_is_counted(
    wait: Callable[[Tensor], Any], operations: list[str], x: Tensor, watch: Watch
) -> None:
    wait(x)
    assert [seen.operation for seen in watch.synchronizations] == operations
    assert all(seen.place.startswith("device/test_pretend") for seen in watch.synchronizations)
