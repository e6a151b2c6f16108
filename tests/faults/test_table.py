"""docs/faults.md names the cases that are there, and all of them."""
import pathlib
import re

HERE = pathlib.Path(__file__).parent
TABLE = (HERE.parents[1] / "docs/faults.md").read_text()


def test_the_table_and_the_cases_agree():
    cases = {}
    for path in HERE.glob("test_*.py"):
        for found in re.finditer(r"@pytest\.mark\.row\(([\d, ]+)\)\n(?:.*\n)*?def (test_\w+)",
                                 path.read_text()):
            cases[found.group(2)] = {int(n) for n in found.group(1).split(",")}
    named = {}
    for line in TABLE.splitlines():
        row = re.match(r"\| (\d+) \|", line)
        for case in re.findall(r"`(test_\w+)`", line) if row else []:
            named.setdefault(case, set()).add(int(row.group(1)))
    assert named.keys() == cases.keys()
    for case, rows in named.items():
        assert rows <= cases[case], case
    assert len(set().union(*named.values())) >= 35
