"""The HTML that cards are made of: what hosts put where, in few elements."""

from modules import HOST

TEMPLATES = {
    "extra-networks-card.html": """
<div class="card" style="{style}" onclick="{card_clicked}" data-name="{name}" {sort_keys}>{background_image}
<div class="button-row">{copy_path_button}{metadata_button}{edit_button}</div>
<div class="additional">{search_terms}</div><span class="name">{name}</span>
<span class="description">{description}</span></div>""",
    "extra-networks-tree-button.html": """
<div class="tree-list-content"
    onclick="extraNetworksTreeOnClick(event, '{tabname}', '{extra_networks_tabname}');{onclick_extra}"
    data-path="{data_path}" data-hash="{data_hash}"><span>{action_list_item_label}</span>
<span class="tree-list-item-action tree-list-item-action--trailing">{action_list_item_action_trailing}</span></div>""",
    "extra-networks-copy-path-button.html": """
<div class="copy-path-button" onclick="copyPath(event)" data-clipboard-text="{filename}"></div>""",
    "extra-networks-edit-item-button.html": """
<div class="edit-button" onclick="edit(event, '{tabname}', '{extra_networks_tabname}')"></div>""",
    "extra-networks-metadata-button.html": """
<div class="metadata-button" onclick="metadata(event, '{extra_networks_tabname}')"></div>""",
    "extra-networks-no-cards.html": "<div class='nocards'><ul>{dirs}</ul></div>",
}
IN_CLASSIC = {
    "extra-networks-copy-path-button.html": """
<div class="copy-path-button" onclick="copyPath(event, '{filename}')" data-clipboard-text="{filename}"></div>""",
    "extra-networks-edit-item-button.html": """
<div class="edit-button" onclick="edit(event, '{tabname}', '{extra_networks_tabname}', '{name}')"></div>""",
    "extra-networks-metadata-button.html": """
<div class="metadata-button" onclick="metadata(event, '{extra_networks_tabname}', '{name}')"></div>""",
}


def template(name):
    """The text of one."""
    return (IN_CLASSIC if HOST == "classic" else {}).get(name) or TEMPLATES[name]
