"""What in a DICOM header may say who the patient is: tag names, never their values."""

from pydicom import Dataset

# Direct identifiers of PS3.15 table E.1-1 (Basic Profile, actions X, Z or D), those that image archives often leave.
_NAMES = (
    "PatientName",
    "PatientBirthDate",
    "PatientBirthName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientMotherBirthName",
    "OtherPatientNames",
    "OtherPatientIDs",
    "MedicalRecordLocator",
    "MilitaryRank",
    "AccessionNumber",
    "InstitutionName",
    "InstitutionAddress",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
    "OperatorsName",
    "ResponsiblePerson",
    "IssuerOfPatientID",
)


def privacy_notes(dataset: Dataset) -> tuple[str, ...]:
    """Names of tags that bear personal data, and `burned-in text` or `recognisable face` where the header says so.

    A PatientName that repeats the PatientID is a pseudonym and not named; nor is any of a file that states that the
    identity was removed (PatientIdentityRemoved = YES), but for the two flags.
    """
    notes = []
    if str(dataset.get("PatientIdentityRemoved", "") or "").upper() != "YES":
        notes += [name for name in _NAMES if (value := _text(dataset, name)) and not _pseudonym(dataset, name, value)]
    if str(dataset.get("BurnedInAnnotation", "") or "").upper() == "YES":
        notes.append("burned-in text (BurnedInAnnotation)")
    if str(dataset.get("RecognizableVisualFeatures", "") or "").upper() == "YES":
        notes.append("recognisable face (RecognizableVisualFeatures)")
    return tuple(notes)


def _text(dataset: Dataset, name: str) -> str:
    try:
        return str(dataset.get(name, "") or "").strip()
    except Exception:  # noqa: BLE001 - an undecodable value is a value
        return "?"


def _pseudonym(dataset: Dataset, name: str, value: str) -> bool:
    return name == "PatientName" and value == _text(dataset, "PatientID")
