"""Reading what stands in a picture."""

import json
import re

from modules import HAS_HYPERNETWORKS

_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def quote(text):
    """A value for the last line."""
    return json.dumps(text, ensure_ascii=False) if any(c in str(text) for c in ",\n:") else text


def unquote(text):
    """And back."""
    return json.loads(text) if text[:1] == '"' == text[-1:] else text


def parse_generation_parameters(x):
    """Prompts and parameters by name; hosts that had hypernetworks make a tag of those in old
    infotexts."""
    *lines, last = x.strip().split("\n")
    result = {key: unquote(value) for key, value in _PARAMETER.findall(last)}
    prompt, _, negative = "\n".join(lines).partition("\nNegative prompt: ")
    result.update({"Prompt": prompt, "Negative prompt": negative})
    if HAS_HYPERNETWORKS:
        if "Hypernet" in result:
            result["Prompt"] += (
                f"<hypernet:{result['Hypernet']}:{result.get('Hypernet strength', '1.0')}>"
            )
        result.setdefault("Hires prompt", "")
    return result
