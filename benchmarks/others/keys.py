"""Which rules answer causes that had none when the faults were written down: key → codes, each with its pattern.

A rule's maker writes here what was made: "new:padding-side": "WIR022" or "TRN009=schedule", where words of the
finding's text count. Faults themselves stay as they were written.
"""

KEYS: dict[str, str] = {
    "new:references-off": "OUT013",
    "new:language-code": "WIR024 WIR025 DAT026",
    "new:generation-settings": "OUT014",
    "new:prefix": "DAT025",
    "new:schedule-ended": "TRN015",
    "new:order-unread": "WIR022",
    "new:set-unlike-training": "DAT024",
    "new:half-precision": "TRN001=half.precision WIR001=half.precision",
    "new:zero-grad": "WIR029",
    "new:probabilities": "WIR027",
    "new:mask-inverted": "WIR005=inverted",
    "new:start-token": "WIR010",
    "new:new-tokens": "WIR023=frozen",
    "new:too-few-steps": "TRN013 TRN014",
    "new:padding-side": "WIR033",
    "new:examples-mixed": "WIR032",
    "new:generation-length": "OUT014 OUT016",
    "new:drawn-anew": "WIR003 WIR036",
    "new:init-too-small": "WIR034",
    "new:clipped-scaled": "WIR035",
    "new:adapter-nothing": "WIR003",
    "new:positions-off": "SRC006",
    "new:other-tokenizer": "OUT017",
}
