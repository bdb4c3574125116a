"""What names mean: for each language, which names stand for which rule. Tables, and the one way to look a name up.

A name is written with dots, and means what the longest entry says that it begins with: `subprocess.run` is found
under `subprocess`, `xml.etree` nowhere. `()` behind a part stands for what calling it gave: `pathlib.Path().unlink`.
An entry of None is harmless though what lies above it is not. Knows nothing of syntax, and nothing of what a policy
thinks of a rule.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "ALIASES",
    "CODE_TAKERS",
    "HARMLESS_DUNDERS",
    "LEADING_OUT",
    "MAGICS",
    "MODULES",
    "PYTHON",
    "ROOTS",
    "SHELL",
    "SHELL_TAKERS",
    "Magic",
    "Words",
]


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


Table = Mapping[str, "str | None"]


@dataclass(frozen=True)
class Words:
    """What is known of one language's names: name -> rule."""

    names: Table = field(default_factory=dict)  # of IMPORT, STAR_IMPORT and USE
    attributes: Table = field(default_factory=dict)  # of ATTRIBUTE, exact
    commands: Table = field(default_factory=dict)  # of COMMAND, exact

    def rule_of_name(self, name: str) -> str | None:
        table = self.names
        if name in table:
            return table[name]
        while "." in name:
            name = name[: name.rindex(".")]
            if name in table:
                return table[name]
        return None


def _rows(rule: str | None, names: str, prefix: str = "") -> dict[str, str | None]:
    return {prefix + name: rule for name in names.split()}


# -- Python ---------------------------------------------------------------------------------------------

_STARTS = """system popen execl execle execlp execlpe execv execve execvp execvpe spawnl spawnle spawnlp spawnlpe spawnv
    spawnve spawnvp spawnvpe posix_spawn posix_spawnp fork forkpty startfile"""
_ENDS = "_exit abort kill killpg"
_PRIVILEGED = """setuid setgid seteuid setegid setreuid setregid setresuid setresgid setgroups initgroups
    chroot unshare setns mknod pivot_root"""
_CHANGES = """remove unlink rmdir removedirs rename renames replace truncate chmod fchmod lchmod chown fchown lchown
    link symlink mkdir makedirs mkfifo utime ftruncate setxattr removexattr"""
_LOOKS = """open fdopen openpty listdir scandir walk fwalk stat lstat access readlink read write sendfile dup dup2
    memfd_create getxattr listxattr chdir fchdir"""
_ENVIRONMENT = "environ environb getenv getenvb putenv unsetenv"
_PATH_CHANGES = """chmod hardlink_to lchmod mkdir rename replace rmdir symlink_to touch unlink write_bytes write_text
    link_to copy copy_into move move_into"""
_PATH_LOOKS = "open read_bytes read_text iterdir glob rglob walk stat lstat readlink owner group"

_PANDAS_READERS = (
    """csv excel table fwf json html xml parquet feather orc sas spss stata hdf sql sql_table sql_query gbq clipboard"""
)

_PYTHON_NAMES: dict[str, str | None] = {
    # programs and processes
    **_rows("process", _STARTS, "os."),
    **_rows("process", _STARTS, "posix."),
    **_rows("process", "subprocess _posixsubprocess popen2 commands pexpect sh plumbum invoke fabric delegator pty"),
    **_rows("process", "multiprocessing _multiprocessing billiard concurrent.futures.ProcessPoolExecutor"),
    **_rows("process", "concurrent.futures.process asyncio.create_subprocess_exec asyncio.create_subprocess_shell"),
    **_rows("process", "asyncio.subprocess webbrowser antigravity psutil.Popen platform.popen"),
    **_rows(None, "multiprocessing.cpu_count multiprocessing.current_process multiprocessing.active_children"),
    **_rows("ends_kernel", _ENDS, "os."),
    **_rows("ends_kernel", _ENDS, "posix."),
    **_rows("ends_kernel", "signal.raise_signal signal.pthread_kill faulthandler._sigsegv faulthandler._sigabrt"),
    **_rows("privileged", _PRIVILEGED, "os."),
    **_rows("privileged", _PRIVILEGED, "posix."),
    # the network
    **_rows("network", "socket _socket socketserver ssl _ssl ftplib smtplib smtpd poplib imaplib nntplib telnetlib"),
    **_rows("network", "xmlrpc http.client http.server urllib.request"),
    **_rows("network", "urllib.urlopen urllib2 httplib urllib3 wsgiref"),
    **_rows("network", "requests httpx aiohttp httplib2 pycurl"),
    **_rows("network", "tornado twisted flask fastapi uvicorn django.core.mail"),
    **_rows("network", "websocket websockets paramiko asyncssh scapy grpc"),
    **_rows("network", "zmq redis pymongo psycopg2 psycopg pymysql"),
    **_rows(
        "network", "mysql boto3 botocore google.cloud azure.storage telegram slack_sdk openml kaggle nltk.download"
    ),
    **_rows("network", "asyncio.open_connection asyncio.start_server asyncio.open_unix_connection pip ensurepip"),
    **_rows(
        "network", "gradio streamlit selenium playwright yfinance pandas_datareader huggingface_hub dns gdown wget"
    ),
    **_rows(None, "socket.gethostname ssl.SSLError socket.timeout socket.error requests.exceptions httpx.HTTPError"),
    # files
    **_rows(
        "file_access",
        "open io.open io.FileIO io.OpenWrapper io.open_code _io.open _io.FileIO codecs.open fileinput linecache",
    ),
    **_rows("file_access", _LOOKS, "os."),
    **_rows("file_access", _LOOKS, "posix."),
    **_rows("file_access", _PATH_LOOKS, "pathlib.Path()."),
    **_rows(
        "file_access", "glob sqlite3 _sqlite3 dbm zipfile tarfile gzip.open bz2.open lzma.open mmap tempfile netrc"
    ),
    **_rows(
        "file_access", "numpy.load numpy.loadtxt numpy.genfromtxt numpy.fromfile numpy.memmap numpy.save numpy.savez"
    ),
    **_rows("file_access", "numpy.savetxt numpy.savez_compressed numpy.fromregex numpy.DataSource numpy.lib.npyio"),
    **_rows(
        "file_access", "numpy.lib.format matplotlib.pyplot.savefig matplotlib.pyplot.imread matplotlib.pyplot.imsave"
    ),
    **_rows("file_access", "matplotlib.image numpy.open_memmap numpy.lib.DataSource"),
    **_rows(
        "file_access", "logging.FileHandler logging.handlers logging.basicConfig csv.open tokenize.open shutil.which"
    ),
    **_rows("file_access", _PANDAS_READERS, "pandas.read_"),
    **_rows("file_access", "pandas.ExcelFile pandas.ExcelWriter pandas.HDFStore pandas.io"),
    **_rows("file_change", _CHANGES, "os."),
    **_rows("file_change", _CHANGES, "posix."),
    **_rows("file_change", _PATH_CHANGES, "pathlib.Path()."),
    **_rows("file_change", "shutil distutils.dir_util distutils.file_util send2trash"),
    **_rows(None, "shutil.get_terminal_size shutil.disk_usage"),
    **_rows("environment", _ENVIRONMENT, "os."),
    **_rows("environment", _ENVIRONMENT, "posix."),
    # code that is made while it runs
    **_rows(
        "dynamic_code", "eval exec compile execfile code codeop runpy types.FunctionType types.CodeType timeit cProfile"
    ),
    **_rows(
        "dynamic_code", "profile trace pdb.run bdb.Bdb doctest ast.unparse ast.compile sympy.sympify sympy.parse_expr"
    ),
    **_rows(
        "dynamic_code", "sympy.parsing sympy.lambdify numexpr pandas.eval pandas.core.computation numpy.f2py numba.core"
    ),
    **_rows("dynamic_code", "IPython.embed IPython.start_ipython get_ipython().run_cell get_ipython().run_code"),
    **_rows(
        "dynamic_code", "get_ipython().run_cell_async get_ipython().ex get_ipython().ev get_ipython().safe_execfile"
    ),
    **_rows(
        "dynamic_code",
        "get_ipython().safe_run_module get_ipython().run_ast_nodes get_ipython().input_transformers_post",
    ),
    **_rows(
        "dynamic_code", "get_ipython().input_transformers_cleanup get_ipython().ast_transformers typing.get_type_hints"
    ),
    **_rows("dynamic_code", "typing.ForwardRef inspect.get_annotations dataclasses.make_dataclass"),
    **_rows("dynamic_code", "string.Formatter pydoc"),
    **_rows("dynamic_import", "__import__ importlib imp pkgutil zipimport pkg_resources zipapp modulefinder site"),
    **_rows("dynamic_import", "sys.path_hooks sys.meta_path sys.path_importer_cache _frozen_importlib"),
    **_rows("dynamic_import", "_frozen_importlib_external _imp pydoc.locate pydoc.safeimport logging.config"),
    **_rows("deserialize", "pickle _pickle cPickle marshal shelve dill cloudpickle jsonpickle joblib copyreg klepto"),
    **_rows(
        "deserialize",
        "pandas.read_pickle torch.load yaml.load yaml.unsafe_load yaml.full_load yaml.load_all",
    ),
    **_rows(
        "deserialize",
        "pandas.compat.pickle_compat pandas.io.pickle multiprocessing.reduction plistlib xmlrpc.client.loads",
    ),
    # looking inside the interpreter
    **_rows("introspection", "globals locals vars __builtins__ builtins __loader__ __spec__ inspect gc sys.modules"),
    **_rows(
        "introspection", "sys._getframe sys._current_frames sys.settrace sys.setprofile sys.addaudithook sys.exc_info"
    ),
    **_rows(
        "introspection", "sys.displayhook sys.excepthook threading.settrace threading.setprofile dis opcode symtable"
    ),
    **_rows(
        "introspection", "traceback.walk_stack traceback.walk_tb traceback.extract_stack weakref.getweakrefs bdb pdb"
    ),
    **_rows("introspection", "_ih _oh _dh"),
    **_rows("introspection", "types.MethodType types.FrameType types.TracebackType types.MappingProxyType"),
    **_rows("introspection", "types.ModuleType types.DynamicClassAttribute"),
    **_rows("introspection", "sys.breakpointhook breakpoint faulthandler"),
    **_rows(
        "introspection",
        "sys.monitoring sys.call_tracing sys._clear_type_cache tracemalloc _testcapi _xxsubinterpreters",
    ),
    **_rows("introspection", "interpreters _interpreters object.__getattribute__ type.__getattribute__"),
    **_rows(
        None, "inspect.cleandoc inspect.signature inspect.isclass inspect.isfunction inspect.getdoc builtins.print"
    ),
    **_rows("computed_attribute", "operator.attrgetter operator.methodcaller"),
    **_rows("computed_attribute", "inspect.getattr_static inspect.getmembers unittest.mock"),
    **_rows("changes_attributes", "setattr delattr object.__setattr__ type.__setattr__ super().__setattr__"),
    # native code
    **_rows("native_code", "ctypes _ctypes cffi _cffi_backend cython"),
    **_rows("native_code", "Cython pyximport numpy.ctypeslib llvmlite weave"),
    **_rows("native_code", "pybind11 cppyy swig distutils.ccompiler setuptools.Extension torch.utils.cpp_extension"),
    # IPython from inside, and the person who sits there
    **_rows(
        "shell", "get_ipython().system get_ipython().getoutput get_ipython().system_raw get_ipython().system_piped"
    ),
    **_rows("shell", "get_ipython().getoutput_pexpect IPython.utils.process IPython.utils._process_posix"),
    **_rows("ipython", "get_ipython IPython ipykernel ipython_genutils traitlets.config"),
    **_rows(None, "IPython.display IPython.core.display get_ipython().run_line_magic get_ipython().run_cell_magic"),
    **_rows(None, "get_ipython().magic IPython.get_ipython"),
    **_rows("introspection", "enum.bltns numpy.lib.utils help"),
    **_rows("browser", "HTML Javascript IFrame YouTubeVideo VimeoVideo ScribdDocument", "IPython.display."),
    **_rows("browser", "display_html display_javascript publish_display_data", "IPython.display."),
    **_rows("file_access", "Image Audio Video SVG FileLink FileLinks Code", "IPython.display."),
    **_rows("file_access", "font_manager rc_file rc_params_from_file", "matplotlib."),
    **_rows("file_access", "zoneinfo.reset_tzpath"),
    **_rows("process", "numpy.distutils matplotlib.animation.FFMpegWriter matplotlib.animation.writers"),
    **_rows("dynamic_code", "runstring rundocs run_module_suite", "numpy.testing."),
    **_rows("native_code", "numpy.lib.stride_tricks.as_strided"),
    **_rows("process", "uuid.getnode uuid.uuid1 numpy.test pandas.test matplotlib.test numpy.testing.run_module_suite"),
    **_rows("file_change", "pandas.show_versions matplotlib.backends.backend_pdf matplotlib.backends.backend_pgf"),
    **_rows("input", "input raw_input getpass sys.stdin"),
}

# Attributes by their bare names. What an object is, only running tells; what these do, their names tell.
_PYTHON_ATTRIBUTES: dict[str, str | None] = {
    **_rows(
        "introspection",
        """__globals__ __builtins__ __subclasses__ __class__ __bases__ __base__ __mro__ mro __dict__ __code__
        __closure__ __func__ __self__ __wrapped__ __getattribute__ __getattr__ __import__ __loader__ __spec__ __reduce__
        __reduce_ex__ __getstate__ __setstate__ __kwdefaults__ __defaults__ __objclass__ __module__
        __subclasshook__ __init_subclass__ __set_name__ __prepare__ __instancecheck__ __annotations__
        __type_params__ __dir__ __weakref__ __path__ __traceback__ tb_frame tb_next f_globals f_locals
        f_builtins f_back f_code gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame
        ag_code ag_await co_code co_consts co_names func_globals func_code im_func im_self im_class
        __thisclass__ __self_class__ __qualname__ __mro_entries__ __class_getitem__ with_traceback user_ns
        user_global_ns""",
    ),
    **_rows("changes_attributes", "__setattr__ __delattr__ __setitem__ __delitem__ __set__ __delete__"),
    **_rows(
        "process", "popen execv execve execvp execvpe spawnl spawnv posix_spawn fork Popen check_output check_call"
    ),
    **_rows("process", "create_subprocess_shell create_subprocess_exec getstatusoutput forkpty system"),
    **_rows("dynamic_code", "eval query exec exec_module"),
    **_rows("dynamic_code", "load_module run_cell run_code run_line_magic run_cell_magic"),
    **_rows("dynamic_code", "run_ast_nodes find_spec getoutput"),
    **_rows("dynamic_import", "import_module get_loader find_loader"),
    **_rows("deserialize", "read_pickle to_pickle allow_pickle"),
    **_rows("native_code", "cdll CDLL ctypes ctypeslib LoadLibrary from_address"),
    **_rows("file_change", "unlink rmtree write_text write_bytes rmdir touch symlink_to hardlink_to"),
    **_rows("file_change", "to_csv to_excel to_parquet to_feather to_hdf"),
    **_rows("file_change", "to_stata to_sql to_orc to_xml tofile savefig"),
    **_rows("file_change", "print_png print_jpg print_pdf print_svg print_ps print_figure print_tif dump"),
    **_rows("process", "to_clipboard read_clipboard"),
    **_rows("native_code", "as_strided __array_interface__ __array_struct__ __cuda_array_interface__"),
    **_rows("file_access", "fromfile loadtxt genfromtxt open_memmap fromregex savez savetxt savez_compressed"),
    **_rows("file_access", "read_text read_bytes iterdir rglob memmap"),
    **_rows("network", "urlopen urlretrieve create_connection"),
}

# Underscored attributes that tell nothing and that ordinary classes call on each other.
HARMLESS_DUNDERS = words(
    """__init__ __new__ __name__ __doc__ __version__ __len__ __iter__ __next__ __enter__ __exit__ __aenter__ __aexit__
    __call__ __str__ __repr__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __bool__ __add__ __sub__
    __mul__ __matmul__ __truediv__ __floordiv__ __mod__ __pow__ __and__ __or__ __xor__ __neg__ __abs__
    __contains__ __getitem__ __int__ __float__ __index__ __format__ __round__ __post_init__ __slots__ __all__
    __author__ __file__ _fields _asdict _replace _make _repr_html_ _"""
)

# What people call a module that an earlier cell imported; taken for it when a cell uses the name unbound.
ALIASES = {
    "np": "numpy",
    "pd": "pandas",
    "plt": "matplotlib.pyplot",
    "mpl": "matplotlib",
    "sp": "subprocess",
    "tf": "tensorflow",
}

# Calls whose first constant string is Python code: it is read too.
CODE_TAKERS = words(
    """eval exec compile timeit.timeit timeit.repeat timeit.Timer timeit.main get_ipython().run_cell get_ipython().ex
    get_ipython().ev get_ipython().run_code cProfile.run profile.run pandas.eval code.interact"""
)

# Calls whose first constant string, or list of such, is a shell line: it is read as one.
SHELL_TAKERS = words(
    """os.system os.popen posix.system subprocess.run subprocess.call subprocess.check_call subprocess.check_output
    subprocess.Popen subprocess.getoutput subprocess.getstatusoutput asyncio.create_subprocess_shell pexpect.run
    pexpect.spawn IPython.utils.process.system IPython.utils.process.getoutput"""
)

PYTHON = Words(_PYTHON_NAMES, _PYTHON_ATTRIBUTES)

# A module's attribute of this name is that module wherever it is found: `tempfile._os`, `statistics.sys`. Only those
# that lead out; not those whose names libraries use for something of their own, as `scipy.signal` and `pandas.io`.
LEADING_OUT = words(
    """os posix sys subprocess builtins importlib ctypes socket shutil pty pathlib inspect gc codecs pickle marshal
    code runpy threading asyncio tempfile ssl zipfile tarfile glob"""
)
MODULES = frozenset(sys.stdlib_module_names)
# What stands for a module, or for a builtin that tables speak of, in a cell that does not bind it. Not what people call
# their variables: an earlier cell more likely bound those than imported the module.
ROOTS = (frozenset(name.partition(".")[0].removesuffix("()") for name in _PYTHON_NAMES) | MODULES) - words(
    """code commands test cmd token site signal trace profile select resource queue sh invoke fabric string email
    calendar symbol statistics numbers graph this parser operator copy time stat dis"""
)

# -- IPython's magics -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Magic:
    """What a magic does, and in which language its line and its cell are."""

    rule: str | None = None
    line: str | None = None
    body: str | None = None


def _magics(magic: Magic, names: str) -> dict[str, Magic]:
    return dict.fromkeys(names.split(), magic)


_SHELL_CELL = Magic("shell", "bash", "bash")
MAGICS: dict[str, Magic] = {
    **_magics(
        Magic(line="python", body="python"), "%time %timeit %prun %debug %%time %%timeit %%prun %%debug %code_wrap"
    ),
    **_magics(Magic(body="python"), "%%capture %%code_wrap %%memit %memit %%mprun"),
    **_magics(Magic("process", body="python"), "%%python %%python2 %%python3 %%pypy"),
    **_magics(Magic("shell", body="bash"), "%%bash %%sh %%script %%zsh"),
    **_magics(_SHELL_CELL, "%%! %%sx %%system %sx %system !"),
    **_magics(Magic("shell"), "%sc %ls %ll %lf %lk %ldir %lx"),
    **_magics(Magic("process"), "%%perl %edit %ed %killbgscripts %alias %alias_magic %rehashx %man"),
    **_magics(Magic("process", body="ruby"), "%%ruby"),
    **_magics(Magic("browser", body="javascript"), "%%javascript %%js"),
    **_magics(Magic("browser"), "%%html %%HTML %%svg %%SVG"),
    **_magics(Magic(), "%%latex %%markdown"),
    **_magics(Magic("network"), "%pip %conda %mamba %micromamba %uv %pastebin"),
    **_magics(Magic("file_change"), "%%writefile %%file %save %logstart %notebook %rm %rmdir %mkdir %mv %cp"),
    **_magics(Magic("file_access"), "%cat %page %pycat %pfile %cd %pushd %popd %dirs %dhist %bookmark %pwd"),
    **_magics(Magic("dynamic_code"), "%run %load %loadpy %macro %rerun %recall %rep %%cython %%cython_inline"),
    **_magics(Magic("dynamic_import"), "%load_ext %reload_ext %unload_ext %autoreload %aimport"),
    **_magics(Magic("deserialize"), "%store"),
    **_magics(Magic("environment"), "%env %set_env"),
    **_magics(
        Magic(),
        """%autoawait %autocall %automagic %colors %config %doctest_mode %gui %hist %history %logoff %logon %logstate
        %logstop %lsmagic %magic %matplotlib %pdb %pdef %pdoc %pinfo %pinfo2 %pprint %precision %psearch
        %psource %pylab %quickref %reset %reset_selective %tb %unalias %who %who_ls %whos %xdel %xmode""",
    ),
}

# -- the shell --------------------------------------------------------------------------------------------

SHELL = Words(
    commands={
        **_rows(
            "network", "curl wget ssh scp sftp ftp telnet nc ncat netcat nmap ping dig host nslookup rsync git socat"
        ),
        **_rows(
            "network", "pip pip3 conda mamba uv npm npx yarn gem cargo go apt apt-get aptitude yum dnf apk brew snap"
        ),
        **_rows("network", "gsutil aws gcloud az kubectl kaggle aria2c"),
        **_rows(
            "privileged", "sudo su doas mount umount chroot nsenter unshare insmod rmmod modprobe reboot shutdown halt"
        ),
        **_rows(
            "privileged", "poweroff iptables nft ip6tables sysctl swapon losetup setcap docker podman runc systemctl"
        ),
        **_rows("privileged", "service useradd usermod passwd visudo capsh bpftool"),
        **_rows("file_change", "rm rmdir mv cp ln mkdir touch chmod chown dd truncate tee shred install unzip tar"),
        **_rows("file_access", "cat ls find head tail grep less more stat du file xxd strings sort sed awk"),
        **_rows("ends_kernel", "kill killall pkill"),
        ">": "file_change",
        "<": "file_access",
        "/dev/tcp": "network",  # what redirections do
        **_rows(
            "dynamic_code", "eval source . exec python python3 perl ruby node php bash sh zsh dash ipython xargs env"
        ),
    }
)
