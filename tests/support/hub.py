"""The HTTP library of the installed huggingface_hub: httpx, or httpx2 from 2.0 on."""

import importlib

from huggingface_hub.errors import Response

http = importlib.import_module(Response.__module__.partition(".")[0])
