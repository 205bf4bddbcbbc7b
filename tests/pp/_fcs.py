"""A small writer of FCS 3.1 files, from the standard (Spidlen et al. 2010): what the reader is checked against."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_fcs(path: Path, events, channels, descriptions=None, **keywords) -> Path:
    """Write float32 events (events, channels); keywords replace or add to those of the text (None leaves one out)."""
    events = np.asarray(events, dtype="<f4")
    data = events.tobytes()
    text = {
        "$BEGINANALYSIS": "0", "$ENDANALYSIS": "0", "$BEGINSTEXT": "0", "$ENDSTEXT": "0", "$BYTEORD": "1,2,3,4", "$DATATYPE": "F",
        "$MODE": "L", "$NEXTDATA": "0", "$PAR": str(len(channels)), "$TOT": str(len(events)),
    }  # fmt: skip
    for i, name in enumerate(channels, start=1):
        text |= {f"$P{i}N": name, f"$P{i}B": "32", f"$P{i}E": "0,0", f"$P{i}R": "262144"}
        if descriptions is not None and descriptions[i - 1]:
            text[f"$P{i}S"] = descriptions[i - 1]
    text |= {f"${key}": value for key, value in keywords.items()}
    text = {key: value for key, value in text.items() if value is not None}
    begin = 58
    for _ in range(3):  # the offsets are a part of the text whose length they tell
        joined = "|" + "".join(f"{k}|{v}|" for k, v in {**text, "$BEGINDATA": "0" * 8, "$ENDDATA": "0" * 8}.items())
        start = begin + len(joined.encode())
    joined = joined.replace("$BEGINDATA|00000000", f"$BEGINDATA|{start:08d}")
    joined = joined.replace("$ENDDATA|00000000", f"$ENDDATA|{start + len(data) - 1:08d}")
    offsets = (begin, start - 1, start, start + len(data) - 1, 0, 0)
    header = "FCS3.1    " + "".join(f"{o:>8d}" for o in offsets)
    path.write_bytes(header.encode() + joined.encode() + data)
    return path
