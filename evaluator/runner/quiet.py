"""The libraries' own output, out of the way of ours."""

from __future__ import annotations


def quiet_libraries(*, generates: bool) -> None:
    """Keep the libraries' progress bars and advice out of the output; errors still show."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if generates:  # importing diffusers takes seconds, which images that exist can do without
        from diffusers.utils import logging as diffusers_logging

        diffusers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
