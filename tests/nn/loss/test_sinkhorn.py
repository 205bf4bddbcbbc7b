from __future__ import annotations

import re

import hypothesis
import numpy as np
import ot
import pytest
import torch
from hypothesis import strategies as st

from scset_tools.nn import ptr_from_sizes
from scset_tools.nn.loss import SinkhornLoss

SOLVERS = ["scaling", "exact"]


def mixture(n: int, *, seed: int, d: int = 30, width: float = 1.0, drift: float = 0.0) -> torch.Tensor:
    """Cells of nine types, always the same; ``drift`` moves the types and changes their shares, as a decoder would."""
    types = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(9, d, generator=types)
    shares = torch.randn(9, generator=types)
    widths = 0.4 + 0.6 * torch.rand(9, d, generator=types)
    cells = torch.Generator().manual_seed(seed)
    centers = centers + drift * torch.randn(9, d, generator=cells)
    shares = torch.softmax(shares + drift / 2 * torch.randn(9, generator=cells), dim=0)
    kinds = torch.multinomial(shares, max(n, 1), replacement=True, generator=cells)[:n]
    return centers[kinds] + width * widths[kinds] * torch.randn(n, d, generator=cells)


def exact_transport(x: torch.Tensor, y: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Value and gradients of exact transport from POT's plan, in double precision."""
    x, y = x.detach().double(), y.detach().double()
    cost = (x[:, None] - y[None]).square().sum(dim=2)
    plan = torch.from_numpy(ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost.numpy(), numItermax=10_000_000))
    x_gradient = 2 * (x / len(x) - plan @ y)
    return (plan * cost).sum().item(), x_gradient, 2 * (y / len(y) - plan.T @ x)


def spread(x: torch.Tensor, y: torch.Tensor) -> float:
    """Sum of the median squared distances from the medians: the unit of the loss's temperature."""
    return sum((z - z.median(dim=0).values).square().sum(dim=1).median().item() for z in (x, y))


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


def leaves(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.clone().requires_grad_() for tensor in tensors]


class TestAgainstExactTransport:
    def test_default_at_1000_cells_is_within_5_percent_and_points_the_same_way(self) -> None:
        x, y = leaves(mixture(1000, seed=1), mixture(1000, seed=2, width=0.6, drift=0.5))
        loss = SinkhornLoss()(x, y)
        loss.sum().backward()
        value, x_gradient, y_gradient = exact_transport(x, y)
        assert value <= loss.item() * (1 + 1e-6)
        assert loss.item() == pytest.approx(value, rel=0.05)
        assert cosine(y.grad, y_gradient) >= 0.98
        assert cosine(x.grad, x_gradient) >= 0.98

    @pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (2, 1), (40, 90), (90, 40), (150, 150)])
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_other_sizes(self, solver: str, n: int, m: int) -> None:
        x, y = leaves(mixture(n, seed=1, d=5), mixture(m, seed=2, d=5))
        loss = SinkhornLoss(solver=solver)(x, y)
        loss.sum().backward()
        value, x_gradient, y_gradient = exact_transport(x, y)
        assert loss.item() == pytest.approx(value, rel=1e-5 if solver == "exact" else 0.05)
        assert value <= loss.item() * (1 + 1e-5)
        assert cosine(x.grad, x_gradient) >= 0.98
        assert cosine(y.grad, y_gradient) >= 0.98


class TestAgainstPot:
    """The same regularised problem, solved by POT in double precision at the temperature in absolute units."""

    @staticmethod
    def pot(x: torch.Tensor, y: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        cost = (x[:, None] - y[None]).square().sum(dim=2)
        plan = ot.sinkhorn(
            ot.unif(len(x)),
            ot.unif(len(y)),
            cost.numpy(),
            temperature,
            "sinkhorn_log",
            stopThr=1e-12,
            numItermax=50_000,
        )
        return torch.from_numpy(plan), cost

    @staticmethod
    def objective(plan: torch.Tensor, cost: torch.Tensor, temperature: float) -> float:
        """Cost plus temperature times the divergence of the plan from the product of its marginals."""
        return ((plan * cost).sum() + temperature * torch.special.xlogy(plan, plan * plan.numel()).sum()).item()

    @pytest.mark.parametrize("solver", ["scaling", "log"])
    @pytest.mark.parametrize("epsilon", [0.5, 0.03])
    def test_value_and_gradients_at_the_same_temperature(self, solver: str, epsilon: float) -> None:
        x, y = mixture(60, seed=1, d=4).double(), mixture(45, seed=2, d=4).double()
        plan, cost = self.pot(x, y, epsilon * spread(x, y))
        x, y = leaves(x, y)
        loss = SinkhornLoss(epsilon=epsilon, solver=solver, tolerance=1e-9, n_iterations=5000)(x, y)
        loss.sum().backward()
        assert loss.item() == pytest.approx((plan * cost).sum().item(), rel=1e-6)
        expected = 2 * (plan.sum(dim=0)[:, None] * y - plan.T @ x).detach()
        torch.testing.assert_close(y.grad, expected, rtol=1e-5, atol=1e-8)
        expected = 2 * (plan.sum(dim=1)[:, None] * x - plan @ y).detach()
        torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-8)

    def test_gradient_is_the_derivative_of_the_regularised_problem(self) -> None:
        x, y = mixture(30, seed=1, d=3).double(), mixture(20, seed=2, d=3).double()
        temperature = 0.1 * spread(x, y)
        (y_leaf,) = leaves(y)
        SinkhornLoss(solver="scaling", epsilon=0.1, tolerance=1e-10, n_iterations=200)(x, y_leaf).sum().backward()
        direction = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
        values = [self.objective(*self.pot(x, y + h * direction, temperature), temperature) for h in (1e-4, -1e-4)]
        slope = (values[0] - values[1]) / 2e-4
        assert (y_leaf.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5)

    def test_debiased_is_the_sinkhorn_divergence(self) -> None:
        x, y = mixture(30, seed=1, d=3).double(), mixture(20, seed=2, d=3).double()
        temperature = 0.2 * spread(x, y)

        def regularised(x: torch.Tensor, y: torch.Tensor) -> float:
            """Value of the dual, by averaged soft minima: for a set against itself POT's alternating ones crawl."""
            exponents = -(x[:, None] - y[None]).square().sum(dim=2) / temperature
            f, g = torch.zeros(len(x), dtype=x.dtype), torch.zeros(len(y), dtype=x.dtype)
            for _ in range(300):
                new_f = np.log(len(y)) - torch.logsumexp(exponents + g, dim=1)
                new_g = np.log(len(x)) - torch.logsumexp(exponents + f[:, None], dim=0)
                f, g = (f + new_f) / 2, (g + new_g) / 2
            return temperature * (f.mean() + g.mean()).item()

        def divergence(x: torch.Tensor, y: torch.Tensor) -> float:
            return regularised(x, y) - regularised(x, x) / 2 - regularised(y, y) / 2

        x_leaf, y_leaf = leaves(x, y)
        loss = SinkhornLoss(solver="scaling", epsilon=0.2, debiased=True, tolerance=1e-10, n_iterations=200)(
            x_leaf, y_leaf
        )
        loss.sum().backward()
        assert loss.item() == pytest.approx(divergence(x, y), rel=1e-6)
        for leaf, moved in ((x_leaf, lambda h: (x + h, y)), (y_leaf, lambda h: (x, y + h))):
            step = 1e-4 * torch.randn(leaf.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
            slope = (divergence(*moved(step)) - divergence(*moved(-step))) / 2
            assert (leaf.grad * step).sum().item() == pytest.approx(slope, rel=1e-4)


class TestClosedForms:
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_on_a_line_the_sorted_cells_are_partners(self, solver: str) -> None:
        x, y = mixture(80, seed=1, d=1).double(), mixture(80, seed=2, d=1).double()
        expected = (x.sort(dim=0).values - y.sort(dim=0).values).square().mean().item()
        assert SinkhornLoss(solver=solver)(x, y).item() == pytest.approx(expected, rel=0.02)

    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("length", [1e-2, 1.0, 1e3])
    def test_a_shift_costs_its_squared_length(self, solver: str, length: float) -> None:
        x = mixture(100, seed=1, d=6)
        shift = torch.tensor([length, 0, 0, 0, 0, 0])
        y = x[torch.randperm(100, generator=torch.Generator().manual_seed(0))] + shift
        (y,) = leaves(y)
        loss = SinkhornLoss(solver=solver)(x, y)
        loss.sum().backward()
        assert loss.item() == pytest.approx(length**2, rel=0.02, abs=2e-4)
        torch.testing.assert_close(y.grad.sum(dim=0), 2 * shift, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("solver", [*SOLVERS, "log"])
    def test_two_cells(self, solver: str) -> None:
        x, y = leaves(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, -2.0]]))
        loss = SinkhornLoss(solver=solver)(x, y)
        loss.sum().backward()
        assert loss.item() == pytest.approx(25.0)
        torch.testing.assert_close(x.grad, torch.tensor([[-6.0, 8.0]]))
        torch.testing.assert_close(y.grad, torch.tensor([[6.0, -8.0]]))

    @pytest.mark.parametrize("debiased", [False, True])
    def test_the_same_cells_in_another_order_cost_nothing(self, debiased: bool) -> None:
        x = mixture(300, seed=1)
        (y,) = leaves(x.flip(0))
        loss = SinkhornLoss(solver="scaling", debiased=debiased)(x, y)
        loss.sum().backward()
        assert 0 <= loss.item() < 1e-4 * spread(x, x)
        assert y.grad.abs().max() * len(y) < 1e-2

    def test_many_cells_onto_one_go_to_their_mean_and_variance(self) -> None:
        x = mixture(50, seed=1, d=4).double()
        y = torch.ones(1, 4, dtype=torch.float64)
        assert SinkhornLoss(solver="scaling")(x, y).item() == pytest.approx(
            (x - y).square().sum(dim=1).mean().item(), rel=1e-10
        )


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
    sizes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5),
    seed=st.integers(0, 100),
    solver=st.sampled_from(["scaling", "log", "exact"]),
)
def test_a_ragged_batch_is_a_loop(sizes: list[tuple[int, int]], seed: int, solver: str) -> None:
    n_x, n_y = zip(*sizes, strict=True)
    x, y = mixture(sum(n_x), seed=seed, d=3).double(), mixture(sum(n_y), seed=seed + 1, d=3).double()
    loss_of = SinkhornLoss(solver=solver, epsilon=0.1)
    x_leaf, y_leaf = leaves(x, y)
    weights = torch.arange(1.0, len(sizes) + 1)
    together = loss_of(x_leaf, y_leaf, x_ptr=ptr_from_sizes(n_x), y_ptr=ptr_from_sizes(n_y))
    (weights * together).sum().backward()
    assert together.shape == loss_of.marginal_error.shape == (len(sizes),)
    for i, (x_set, y_set) in enumerate(zip(x.split(n_x), y.split(n_y), strict=True)):
        x_alone, y_alone = leaves(x_set, y_set)
        alone = loss_of(x_alone, y_alone)
        (weights[i] * alone).sum().backward()
        torch.testing.assert_close(together[i : i + 1], alone)
        torch.testing.assert_close(x_leaf.grad.split(n_x)[i], x_alone.grad)
        torch.testing.assert_close(y_leaf.grad.split(n_y)[i], y_alone.grad)


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    seed=st.integers(0, 100),
    scale=st.floats(1e-4, 1e4),
    solver=st.sampled_from(["scaling", "exact"]),
)
def test_laws(n: int, m: int, seed: int, scale: float, solver: str) -> None:
    """Exact transport below, order and roles without effect, squared units."""
    x, y = mixture(n, seed=seed, d=3).double(), mixture(m, seed=seed + 1, d=3).double()
    loss_of = SinkhornLoss(solver=solver, epsilon=0.05, tolerance=1e-8, n_iterations=500)
    value = loss_of(x, y).item()
    assert value >= exact_transport(x, y)[0] * (1 - 1e-9)
    assert loss_of(y, x).item() == pytest.approx(value, rel=1e-5)
    assert loss_of(scale * x, scale * y).item() == pytest.approx(scale**2 * value, rel=1e-5)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert loss_of(x[order], y.flip(0)).item() == pytest.approx(value, rel=1e-5)


class TestHardCases:
    @pytest.mark.parametrize("solver", [*SOLVERS, "log"])
    def test_an_empty_set_costs_nothing_and_has_a_graph(self, solver: str) -> None:
        x, y = leaves(mixture(5, seed=1, d=3), mixture(6, seed=2, d=3))
        loss = SinkhornLoss(solver=solver, epsilon=0.1)(
            x, y, x_ptr=torch.tensor([0, 0, 2, 5]), y_ptr=torch.tensor([0, 4, 4, 6])
        )
        loss.sum().backward()
        assert loss[:2].tolist() == [0.0, 0.0]
        assert loss[2] > 0
        assert x.grad[:2].abs().max() == y.grad[:4].abs().max() == 0
        assert y.grad[4:].abs().min() > 0

    def test_no_cells_at_all(self) -> None:
        x, y = leaves(torch.zeros(0, 3), torch.zeros(0, 3))
        loss = SinkhornLoss(solver="scaling")(x, y)
        loss.sum().backward()
        assert loss.tolist() == [0.0]
        assert x.grad.shape == (0, 3)

    def test_a_batch_without_samples(self) -> None:
        empty, ptr = torch.zeros(0, 3), torch.zeros(1, dtype=torch.int64)
        assert SinkhornLoss(solver="scaling")(empty, empty, x_ptr=ptr, y_ptr=ptr).shape == (0,)

    @pytest.mark.parametrize("at", [0.0, 1e4])
    def test_all_cells_in_one_place(self, at: float) -> None:
        x, y = leaves(torch.full((7, 3), at), torch.full((4, 3), at + 2))
        loss = SinkhornLoss(solver="scaling")(x, y)
        loss.sum().backward()
        assert loss.item() == pytest.approx(12.0)
        torch.testing.assert_close(y.grad, torch.full((4, 3), 1.0))

    def test_decoder_that_has_not_learnt_anything(self) -> None:
        """All decoded cells in nearly one place, as at the first step of training."""
        x = mixture(300, seed=1)
        (y,) = leaves(0.01 * torch.randn(300, 30, generator=torch.Generator().manual_seed(0)))
        loss = SinkhornLoss(solver="scaling")(x, y)
        loss.sum().backward()
        value, _, y_gradient = exact_transport(x, y)
        assert loss.item() == pytest.approx(value, rel=1e-3)
        assert cosine(y.grad, y_gradient) > 0.95

    @pytest.mark.parametrize("distance", [1e2, 1e4, 1e6])
    def test_outliers_leave_the_others_alone(self, distance: float) -> None:
        x, y = mixture(200, seed=1), mixture(200, seed=2)
        x[3], y[5] = distance, -distance  # opposite corners
        (y,) = leaves(y)
        loss = SinkhornLoss(solver="scaling")(x, y)
        loss.sum().backward()
        value, _, y_gradient = exact_transport(x, y)
        assert loss.item() == pytest.approx(value, rel=0.05)
        assert cosine(y.grad, y_gradient) > 0.98
        assert y.grad.isfinite().all()

    def test_costs_over_many_orders_of_magnitude(self) -> None:
        size = torch.logspace(-4, 4, 120).unsqueeze(1)
        x = size * torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
        (y,) = leaves(size * torch.randn(120, 5, generator=torch.Generator().manual_seed(1)))
        loss = SinkhornLoss(solver="scaling")(x, y)
        loss.sum().backward()
        value, _, y_gradient = exact_transport(x, y)
        assert loss.item() == pytest.approx(value, rel=0.05)
        assert cosine(y.grad, y_gradient) > 0.98

    def test_autocast_and_narrow_inputs_are_computed_in_single_precision(self) -> None:
        x, y = mixture(64, seed=1).bfloat16(), mixture(64, seed=2).bfloat16()
        expected = SinkhornLoss(solver="scaling")(x.float(), y.float())
        (y,) = leaves(y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = SinkhornLoss(solver="scaling")(x, y)
        loss.sum().backward()
        assert loss.dtype == torch.float32
        assert y.grad.dtype == torch.bfloat16
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)

    def test_reduced_precision_of_products_is_not_used(self) -> None:
        """Under TF32 the exponents would be wrong by tens."""
        x, y = mixture(100, seed=1), mixture(100, seed=2)
        expected = SinkhornLoss(solver="scaling")(x, y)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            loss = SinkhornLoss(solver="scaling")(x, y)
        finally:
            torch.set_float32_matmul_precision(before)
        torch.testing.assert_close(loss, expected, rtol=5e-3, atol=0)

    @pytest.mark.parametrize("solver", [*SOLVERS, "log"])
    def test_invalid_numbers_show(self, solver: str) -> None:
        x = mixture(10, seed=1, d=3)
        x[2, 1] = torch.nan
        assert SinkhornLoss(solver=solver)(x, mixture(10, seed=2, d=3)).isnan().all()

    def test_only_what_needs_a_gradient_gets_one(self) -> None:
        x = mixture(10, seed=1, d=3)
        (y,) = leaves(mixture(10, seed=2, d=3))
        SinkhornLoss(solver="scaling")(x, y).sum().backward()
        assert x.grad is None
        assert y.grad is not None

    @pytest.mark.gpu
    def test_cuda_agrees_with_the_cpu(self) -> None:
        x, y = mixture(600, seed=1), mixture(500, seed=2)
        x_ptr, y_ptr = torch.tensor([0, 200, 400, 600]), torch.tensor([0, 200, 400, 500])
        (on_cpu,) = leaves(y)
        (on_gpu,) = leaves(y.cuda())
        expected = SinkhornLoss(solver="scaling")(x, on_cpu, x_ptr=x_ptr, y_ptr=y_ptr)
        loss = SinkhornLoss(solver="scaling")(x.cuda(), on_gpu, x_ptr=x_ptr.cuda(), y_ptr=y_ptr.cuda())
        expected.sum().backward()
        loss.sum().backward()
        torch.testing.assert_close(loss.cpu(), expected, rtol=0.01, atol=0)
        assert cosine(on_gpu.grad.cpu(), on_cpu.grad) > 0.99


class TestAuto:
    """The default: exact where that is quicker."""

    def test_small_sets_are_exact(self) -> None:
        x, y = mixture(60, seed=1), mixture(50, seed=2)
        assert SinkhornLoss()(x, y).item() == SinkhornLoss(solver="exact")(x, y).item()

    def test_large_and_debiased_sets_are_scaled(self) -> None:
        x, y = mixture(600, seed=1), mixture(500, seed=2)
        assert SinkhornLoss()(x, y).item() == SinkhornLoss(solver="scaling")(x, y).item()
        x, y = x[:60], y[:50]
        assert SinkhornLoss(debiased=True)(x, y).item() == SinkhornLoss(solver="scaling", debiased=True)(x, y).item()


class TestConvergence:
    def test_error_is_the_mass_left_in_wrong_rows(self) -> None:
        loss = SinkhornLoss(solver="scaling")
        loss(mixture(200, seed=1), mixture(200, seed=2, drift=0.5))
        assert loss.marginal_error.shape == (1,)
        assert 0 <= loss.marginal_error.item() < 0.02

    @pytest.mark.parametrize(("solver", "n_iterations"), [("scaling", 1), ("log", 20)])
    def test_a_plan_that_has_not_converged_warns(self, solver: str, n_iterations: int) -> None:
        loss = SinkhornLoss(solver=solver, n_iterations=n_iterations, annealing=0.001)
        x, y = mixture(200, seed=1), mixture(200, seed=2, drift=0.5)
        with pytest.warns(RuntimeWarning, match="transport is not converged: .* of the mass of a sample"):
            value = loss(x, y).item()
        assert loss.marginal_error.item() > 0.05
        # Put in place, the mass costs more than it must, never less.
        assert value > exact_transport(x, y)[0]


class TestMessages:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"solver": "auction"}, "solver must be one of auto, scaling, log, exact, got 'auction'"),
            ({"epsilon": 0.0}, "epsilon and tolerance must be positive, got 0.0"),
            ({"tolerance": -1.0}, "must be positive, got 0.0001 and -1.0"),
            ({"annealing": 1.0}, "annealing must lie between 0 and 1, got 1.0"),
            ({"n_iterations": 0}, "n_iterations must be at least 1, got 0"),
            ({"solver": "exact", "debiased": True}, "solver='exact' has none: drop one of the two"),
        ],
    )
    def test_arguments(self, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            SinkhornLoss(**arguments)

    @pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4, 3), (4,)), ((2, 4, 3), (2, 4, 3))])
    def test_features(self, shapes: tuple) -> None:
        x, y = (torch.zeros(shape) for shape in shapes)
        with pytest.raises(ValueError, match=re.escape(f"with the same features, got {shapes[0]} and {shapes[1]}")):
            SinkhornLoss(solver="scaling")(x, y)

    @pytest.mark.parametrize("ptr", [[0, 3], [1, 4], [0, 3, 2, 4], []])
    def test_boundaries_that_do_not_fit(self, ptr: list[int]) -> None:
        x = torch.zeros(4, 3)
        with pytest.raises(ValueError, match="y_ptr must rise from 0 to the 4 cells of y"):
            SinkhornLoss(solver="scaling")(x, x, x_ptr=torch.tensor([0, 4]), y_ptr=torch.tensor(ptr, dtype=torch.int64))

    def test_numbers_of_samples(self) -> None:
        x = torch.zeros(4, 3)
        with pytest.raises(ValueError, match="x has 2 samples and y has 1: pass x_ptr and y_ptr of the same"):
            SinkhornLoss(solver="scaling")(x, x, x_ptr=torch.tensor([0, 2, 4]))


@pytest.mark.parametrize("solver", ["exact", "scaling"])
def test_far_from_the_origin_the_cost_is_the_same(solver: str) -> None:
    """Cells that are exact in float32 wherever they are: steps of 1/4, whose mean float32 cannot hold at 2e6."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(-8, 9, (n, 3), generator=generator) / 4 for n in (40, 50))
    loss = SinkhornLoss(solver=solver, epsilon=1e-2)
    near = loss(x, y + 0.25)
    for far in (1e4, 1e6, 2e6):
        (a, b) = (x + far).requires_grad_(), (y + 0.25 + far)
        value = loss(a, b)
        value.sum().backward()
        assert value.item() == pytest.approx(near.item(), rel=1e-4)
        assert a.grad.isfinite().all()
