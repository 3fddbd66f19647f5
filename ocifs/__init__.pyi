from ocifs.api import AsyncTree as AsyncTree
from ocifs.api import Entry as Entry
from ocifs.api import Stat as Stat
from ocifs.api import Tree as Tree
from ocifs.api import open as open
from ocifs.api import open_async as open_async
from ocifs.errors import OcifsError as OcifsError
from ocifs.options import Options as Options

__version__: str
