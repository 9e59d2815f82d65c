"""Which column of a table says what, whatever its exact header, and which of its cells name the same patient."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.finding import Finding, first_of
from medfsad_bench.layouts.table_file import TableFile

_FILES = ("path", "filepath", "imagepath", "file", "filename", "imagefile", "imagename", "image", "img", "imageid")
_LABELS = ("label", "class", "diagnosis", "target", "category", "anomalous", "abnormal")
_PERSONS = (  # in the order of their right
    *("patient", "patientid", "patientno", "patientnr", "patientnumber", "patientname", "pid", "mrn"),
    *("subject", "subjectid", "subj", "participant", "participantid", "person", "personid", "donor", "animal"),
)
_PARTS = (  # of a person; the words have other meanings too
    *("case", "caseid", "casenumber", "slide", "slideid", "study", "studyid", "studyinstanceuid", "exam", "examid"),
    *("accession", "accessionnumber", "eye", "eyeid"),
)
_MASK = re.compile(r"^(?:mask|maskpath|maskfile|maskname|segmentation|seg)\d*$")
_PLACEHOLDERS = frozenset(
    {"anonymous", "anonymized", "anonymised", "anon", "anonym", "deidentified", "removed", "unknown", "none", "na"}
    | {"nan", "null", "nopatientid", "patient", "patientid", "xxx", "x", "notavailable", "notapplicable", "noid"}
)
_SIDES = frozenset({"left", "right", "l", "r", "od", "os", "both", "ou"})
_MANGLED = re.compile(r"^\d+[.,]00?$|^\d(?:[.,]\d+)?[eE]\+?\d{1,2}$")  # what a spreadsheet makes of an id
_DIGITS = re.compile(r"(\d+)")
_RUNS = 1.2  # runs of equal cells per value, in the order of names, up to which a column looks like patients
_REPEATS = 1.5  # rows per value from which it does


def columns_of(table: TableFile, given: Mapping[str, str] | None = None) -> dict[str, tuple[str, ...]]:
    """Headers of a table by what they say: `path`, `label`, `patient`, `mask` (any number of them).

    Headers are compared without case, spaces, underscores and the like. Of several columns of patients the first in the
    order patient, subject, case, slide, study, eye is taken whose cells repeat. A case or an eye of two values is none.

    Args:
        table: The table.
        given: Headers that the user named, by what they say; `path=path` and the like name none.

    Raises:
        DownloadError: If one that the user named isn't there.
    """
    given = {what: header for what, header in (given or {}).items() if what != header}
    if missing := sorted(set(given.values()) - set(table.header)):
        raise DownloadError(
            f"{table.path.name}: column {missing[0]!r} not found; the table has "
            f"{', '.join(table.header) or 'no header'}. Name one of these."
        )
    words = {name: plain_word(name) for name in table.header}
    columns: dict[str, tuple[str, ...]] = {what: (header,) for what, header in given.items()}
    for what, names in (("path", _FILES), ("label", _LABELS)):
        header = next((header for name in names for header, word in words.items() if word == name), None)
        if header is not None:
            columns.setdefault(what, (header,))
    patients = [header for name in _PERSONS for header, word in words.items() if word == name]
    parts = [header for name in _PARTS for header, word in words.items() if word == name]
    patients += [header for header in parts if len(_cells(table, header) - _SIDES) > 2]
    if patients:
        repeated = (header for header in patients if len(_cells(table, header)) < len(table.rows))
        columns.setdefault("patient", (next(repeated, patients[0]),))
    if masks := tuple(header for header, word in words.items() if _MASK.match(word)):
        columns.setdefault("mask", masks)
    return columns


def is_placeholder(patient: str) -> bool:
    """Whether a patient's ID is empty, or a word for none: `ANONYMOUS`, `unknown`, zeros.

    >>> [is_placeholder(text) for text in ("ANONYMOUS", "0000", "n/a", "P0001")]
    [True, True, True, False]
    """
    word = plain_word(patient)
    return not word.strip("0") or word in _PLACEHOLDERS


def patients_of(table: TableFile, header: str) -> tuple[dict[int, str], list[Finding]]:
    """The patient of each line of a table, one spelling per patient; empty where the table names none.

    `1` and `1.0`, `001`, `p7` and `P7` are one patient: the coarser reading, which is noted, as is what a spreadsheet
    made of long numbers.
    """
    cells = {line: row[header] for line, row in table.rows.items()}
    spellings: dict[str, set[str]] = defaultdict(set)
    for cell in cells.values():
        if not is_placeholder(cell) or set(cell) == {"0"}:  # in a table, zeros are a number like any other
            spellings[_canonical(cell)].add(cell)
    findings = []
    if len(spellings) < 2 < len(cells):
        what = f"column {header!r} names {len(spellings)} patient(s) in {len(cells)} rows, and isn't used; fill it in"
        return dict.fromkeys(cells, ""), [Finding("anonymous-patients", table.path.name, what, stops=False)]
    if mangled := sorted(cell for cell in set(cells.values()) if _MANGLED.match(cell)):
        what = (
            f"column {header!r} has ids that a spreadsheet has rewritten, such as {mangled[0]!r}; different patients "
            "may have become one. Export the table anew with that column as text"
        )
        findings.append(Finding("mangled-ids", f"{table.path.name}: {first_of(mangled)}", what, stops=False))
    if several := sorted(", ".join(sorted(names)) for names in spellings.values() if len(names) > 1):
        what = f"column {header!r}: {len(several)} patient(s) are spelled in several ways, and taken as one each"
        findings.append(Finding("patient-spellings", f"{table.path.name}: {first_of(several)}", what, stops=False))
    missing = [line for line, cell in cells.items() if _canonical(cell) not in spellings]
    if missing:
        what = f"column {header!r} is empty or says nobody in {len(missing)} of {len(cells)} rows; fill it in"
        findings.append(
            Finding("no-patient", f"{table.path.name}, line {first_of([str(n) for n in missing])}", what, False)
        )
    names = {key: min(cells) for key, cells in spellings.items()}
    return {line: names.get(_canonical(cell), "") for line, cell in cells.items()}, findings


def unused_columns(table: TableFile, columns: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """Columns that look like patients where none is taken for that: cells repeat, and neighbours by name share them."""
    if "patient" in columns or "path" not in columns:
        return []
    names = columns["path"][0]
    rows = sorted(table.rows.values(), key=lambda row: natural(row[names]))
    taken = {header for headers in columns.values() for header in headers}
    findings = []
    for header in table.header:
        cells = [row[header] for row in rows]
        values = len(set(cells))
        runs = 1 + sum(cell != following for cell, following in pairwise(cells))
        if header not in taken and 2 < values <= len(cells) / _REPEATS and runs <= _RUNS * values:
            what = (
                f"column {header!r} isn't used, and looks like patients: {values} values in {len(cells)} rows, shared "
                "by neighbours. If so, call it patient, or its images may stand on both sides"
            )
            findings.append(Finding("unused-column", f"{table.path.name}: {header}", what, stops=False))
    return findings


def plain_word(text: str) -> str:
    """Letters and digits alone, without case.

    >>> plain_word("Patient ID") == plain_word("patient_id") == plain_word("PatientID")
    True
    """
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def natural(text: str) -> list[tuple[int, str]]:
    """A key to sort by, in which `a2` comes before `a10`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in _DIGITS.split(text)]


def _cells(table: TableFile, header: str) -> set[str]:
    return {plain_word(row[header]) for row in table.rows.values()} - {""}


def _canonical(cell: str) -> str:
    """One form for all spellings of an ID.

    >>> [_canonical(text) for text in ("001", "1.0", "1E+05", "P7")]
    ['1', '1', '100000', 'p7']
    """
    if _MANGLED.match(cell):
        return str(int(Decimal(cell.replace(",", "."))))
    if cell.isdecimal():
        return cell.lstrip("0") or "0"
    return " ".join(unicodedata.normalize("NFC", cell).casefold().split())
