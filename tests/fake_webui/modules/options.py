"""Settings: what there is, and their values."""

from modules import HOST


class OptionInfo:
    """One setting."""

    def __init__(
        self,
        default=None,
        label="",
        component=None,
        component_args=None,
        onchange=None,
        section=None,
        refresh=None,
        comment_before="",
        comment_after="",
        infotext=None,
        restrict_api=False,
        category_id=None,
    ):
        self.default, self.label = default, label
        self.component, self.component_args = component, component_args
        self.onchange, self.section, self.refresh = onchange, section, refresh
        self.comment_before, self.comment_after = comment_before, comment_after
        self.infotext, self.restrict_api, self.category_id = (
            infotext,
            restrict_api and HOST != "sdnext",
            category_id,
        )

    def info(self, info):
        """Explain it."""
        self.comment_after += f"<span class='info'>({info})</span>"
        return self


class Options:
    """All settings; values are attributes, as far as they are known."""

    def __init__(self, data_labels, restricted_opts):
        self.__dict__.update(
            data_labels=data_labels, restricted_opts=restricted_opts, hide_ui_dir_config=False
        )
        self.__dict__["data"] = {key: option.default for key, option in data_labels.items()}

    def __getattr__(self, item):
        data, labels = self.__dict__["data"], self.__dict__["data_labels"]
        if item in data:
            return data[item]
        if item in labels:
            return labels[item].default
        raise AttributeError(item)

    def __setattr__(self, key, value):
        self.data[key] = value

    def set(self, key, value, is_api=False, run_callbacks=True):
        """Change one, unless it may not be; its callback runs."""
        option = self.data_labels[key]
        hidden = (
            isinstance(option.component_args, dict)
            and option.component_args.get("visible", True) is False
        )
        if hidden or (is_api and option.restrict_api):
            return False
        self.data[key] = value
        if run_callbacks and option.onchange is not None:
            option.onchange()
        return True

    def add_option(self, key, info):
        """Add one; a value that the settings file has stays."""
        self.data_labels[key] = info
        self.data.setdefault(key, info.default)
