"""Shows solvers as numbers: which of them are the same, where their calls lie, and how large their weights get."""

import solverbench as sb

SAME = [
    ("ddim", "euler:grid=time_uniform"),
    ("ddim", "euler"),  # one formula on two grids
    ("dpm:order=1:grid=polynomial", "euler"),
    ("dpm:order=2:grid=polynomial", "dpm:order=3:grid=polynomial"),
    ("unipc:order=1", "dpm:order=1"),  # UniPC corrects
]


def main() -> None:
    teacher = sb.load_teacher("digits")
    for nfe in (4, 6):
        for one, other in SAME:
            same = sb.tableau(one, nfe=nfe, teacher=teacher).equals(sb.tableau(other, nfe=nfe, teacher=teacher))
            print(f"NFE {nfe}: {one} and {other} are {'one method' if same else 'two methods'}")
    print()
    for spec in ("euler", "dpm", "unipc", "ipndm", "heun", "gas"):
        tableau = sb.tableau(spec, nfe=6, teacher=teacher)
        levels = "  ".join(f"{float(sigma):7.3f}" for sigma in tableau.sigmas)
        largest = float(tableau.weights[:, 1:].abs().max())
        print(f"{spec:<6} largest weight {largest:8.2f}   called at {levels}")
    assert sb.tableau("ddim", nfe=6).equals(sb.tableau("euler:grid=time_uniform", nfe=6))


if __name__ == "__main__":
    main()
