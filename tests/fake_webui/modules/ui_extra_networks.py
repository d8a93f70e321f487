"""Tabs of cards; SD.Next has its own kind."""

from modules import HOST

if HOST == "sdnext":
    from modules.fake_cards_sdnext import (
        ExtraNetworksPage,
        allowed_dirs,
        extra_pages,
        register_page,
    )
else:
    from modules.fake_cards import (  # noqa: F401
        ExtraNetworksPage,
        allowed_dirs,
        extra_pages,
        get_metadata,
        get_single_card,
        register_page,
    )
