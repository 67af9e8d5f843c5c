"""Shows a learned solver of your own, trained in Python: how far Adams-Bashforth extrapolates, a number a step."""

import sys
from pathlib import Path

import torch

import solverbench as sb
from solverbench.learned import recipes
from solverbench.learned.training import train as training


class LearnedAB2(sb.LearnedSolver):
    """Adams-Bashforth whose extrapolation is trained: 0 is Euler, 1 the textbook's second order."""

    name = "learned_ab2"
    paper = "unpublished"

    def initial(self, schedule, nfe):
        return {"trust": torch.ones(nfe - 1, dtype=torch.float64)}

    def integrate(self, denoise, x, grid):
        s = grid.sigmas
        past = (x - denoise(x, s[0])) / s[0]
        x = x + (s[1] - s[0]) * past
        for n in range(1, grid.steps):
            h, slope = s[n + 1] - s[n], (x - denoise(x, s[n])) / s[n]
            ratio = self.trained["trust"][n - 1] * h / (s[n] - s[n - 1]) / 2
            x, past = x + h * ((1 + ratio) * slope - ratio * past), slope
        return x


def main(out: Path) -> None:
    torch.set_num_threads(1)
    sb.register(LearnedAB2)
    teacher = sb.load_teacher("digits")
    solver = LearnedAB2()
    recipe = recipes.chosen(solver, teacher).override(
        ["iterations=60", "train_size=256", "validation_size=200", "training_seeds=1"]
    )
    trained = training.train_best(solver, 5, teacher, recipe, out=out)
    untrained = sb.tableau(solver.with_parameters(solver.initial(teacher.schedule, 5)), nfe=5, teacher=teacher)
    assert untrained.equals(sb.tableau("ipndm_v:order=2", nfe=5, teacher=teacher))  # trust = 1 is Adams-Bashforth
    print("trust:", [round(value, 2) for value in trained.parameters["trust"].tolist()])
    frame = sb.run(solvers="learned_ab2,ipndm_v:order=2,euler", nfe="5", samples=500, replicates=1, out=str(out))
    print(frame[frame.metric == "rmse_teacher"].set_index("solver")["value"].round(4).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
