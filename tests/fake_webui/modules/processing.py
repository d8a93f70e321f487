"""A job."""


class StableDiffusionProcessing:
    """What a picture is made from."""

    def __init__(self, prompt="", **fields):
        self.prompt, self.negative_prompt = prompt, ""
        self.all_prompts = self.prompts = self.scripts = None
        self.hr_prompt, self.enable_hr, self.is_hr_pass = "", False, False
        self.batch_size, self.n_iter, self.iteration = 1, 1, 0
        self.styles: list = []
        self.extra_generation_params: dict = {}
        self.disable_extra_networks = False
        self.comments: dict = {}
        self.__dict__.update(fields)

    def comment(self, text):
        """A line beneath the picture."""
        self.comments[text] = 1


def process_images_inner(p):
    """Makes nothing."""
    return p
