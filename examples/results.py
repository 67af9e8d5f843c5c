"""Shows results in Python, as in a notebook: a run, its table, a paired comparison, figures for a paper."""

import sys
from pathlib import Path

import solverbench as sb


def main(out: Path) -> None:
    sb.run(solvers="gas,dpm:order=2,ipndm", nfe="4-6", samples=500, replicates=1, out=str(out))
    results = sb.load_results(out)
    frame = results.frame  # a row per cell and metric; `low` and `high` are the 95 % interval
    rmse = frame[frame.metric == "rmse_teacher"]
    print(rmse.pivot(index="solver", columns="nfe", values="value").round(4).to_string())
    best = rmse.loc[rmse.groupby("nfe")["value"].idxmin(), ["nfe", "solver", "value", "low", "high"]]
    print(best.round(4).to_string(index=False))

    figures = out / "figures"
    figures.mkdir(exist_ok=True)
    sb.plot(results, "rmse_teacher").save(str(figures / "rmse.pdf"))
    sb.plot(results, kind="weights", width="neurips").save(str(figures / "weights.pdf"))
    print("figures:", *sorted(path.name for path in figures.iterdir()))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
