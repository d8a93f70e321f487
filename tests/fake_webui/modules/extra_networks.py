"""Extra networks, by the word in their tags."""

import re
from collections import defaultdict

from modules import errors

extra_network_registry: dict = {}


def initialize():
    """Forget all."""
    extra_network_registry.clear()


def register_extra_network(extra_network):
    """Add one; the last one of a name counts."""
    extra_network_registry[extra_network.name] = extra_network


class ExtraNetworkParams:
    """What stands in one tag."""

    def __init__(self, items=None):
        self.items = items or []
        self.named = dict(
            item.split("=", 1)
            for item in self.items
            if isinstance(item, str) and item.count("=") == 1
        )
        self.positional = [
            item for item in self.items if not (isinstance(item, str) and item.count("=") == 1)
        ]


class ExtraNetwork:
    """A kind of extra network."""

    def __init__(self, name):
        self.name = name

    def activate(self, p, params_list):
        """A generation begins."""
        raise NotImplementedError

    def deactivate(self, p):
        """It is over."""
        raise NotImplementedError


def activate(p, extra_network_data):
    """Every registered one, those without tags with an empty list; one that raises is reported."""
    for name, extra_network in extra_network_registry.items():
        try:
            extra_network.activate(p, extra_network_data.get(name, []))
        except Exception as error:
            errors.display(error, f"activating {name}")


def deactivate(p, extra_network_data):
    """The same for the end."""
    for name, extra_network in extra_network_registry.items():
        try:
            extra_network.deactivate(p)
        except Exception as error:
            errors.display(error, f"deactivating {name}")


def parse_prompt(prompt):
    """The prompt without tags, and their items by kind."""
    found = defaultdict(list)

    def take(match):
        found[match[1]].append(ExtraNetworkParams(match[2].split(":")))
        return ""

    return re.sub(r"<(\w+):([^>]+)>", take, prompt), found


def parse_prompts(prompts):
    """All prompts of a batch; the first one's tags."""
    parsed = [parse_prompt(prompt) for prompt in prompts]
    return [clean for clean, _ in parsed], parsed[0][1] if parsed else None
