"""Everything between an Item and its embedding; the only layer that touches the model libraries."""

import logging

# peft imports it wherever it is installed, and on some CPUs it then asks for a package that nothing here needs
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
