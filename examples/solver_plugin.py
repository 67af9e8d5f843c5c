"""Shows two solvers of your own: a multistep one and one with an option and two calls a step; checked and measured.

It is a plugin, too: `solverbench run --plugin examples/solver_plugin.py --solvers ab2,midpoint:r=0.3 --nfe 6`, and
`solverbench check examples/solver_plugin.py` says what it keeps.
"""

import sys
from pathlib import Path

import solverbench as sb
from solverbench import conformance


class AB2(sb.Solver):
    """Two-step Adams-Bashforth in sigma, Euler start."""

    name = "ab2"
    paper = "any textbook"
    local_order = global_order = 2

    def integrate(self, denoise, x, grid):
        s, past = grid.sigmas, None
        for n in range(grid.steps):
            h, slope = s[n + 1] - s[n], (x - denoise(x, s[n])) / s[n]
            ratio = 0 if past is None else h / (s[n] - s[n - 1]) / 2
            x, past = x + h * ((1 + ratio) * slope - ratio * (slope if past is None else past)), slope
        return x


class Midpoint(sb.Solver):
    """Two calls a step, the second at r of it in log sigma, r = 1/2 being the midpoint."""

    name = "midpoint"
    paper = "any textbook"
    r: float = sb.option(0.5, above=0.0, help="where the second call is made")

    def steps(self, nfe):
        if nfe < 2 or nfe % 2:
            near = [n for n in (nfe - 1, nfe + 1) if n > 1]
            raise sb.refuse_budget(self, nfe, "each step costs 2 calls", near)
        return nfe // 2

    def integrate(self, denoise, x, grid):
        for s, t in zip(grid.sigmas, grid.sigmas[1:], strict=False):
            m = s ** (1 - self.r) * t**self.r
            inner = x + (m - s) * (x - denoise(x, s)) / s
            x = x + (t - s) * (inner - denoise(inner, m)) / m
        return x


def main(out: Path) -> None:
    sb.register(AB2)
    sb.register(Midpoint)
    conformance.assert_conforms(AB2())  # raises with a line for each check that fails
    print(*(outcome.line for outcome in conformance.run_all(AB2()) if "order" in outcome.line), sep="\n")
    frame = sb.run(solvers="ab2,midpoint,euler", nfe="6", samples=200, replicates=1, out=str(out))
    print(frame[frame.metric == "rmse_teacher"].set_index("solver")["value"].round(4).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
