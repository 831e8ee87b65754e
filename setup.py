"""Package metadata.

`client/` is installed under the import name `tnt_client`, so that no generic name `client` lands
among the packages of the machine.
"""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "tntd" / "__init__.py").read_text("utf-8"))
assert VERSION is not None

setup(
    name="talkntransfer",
    version=VERSION[1],
    description="Peer-to-peer chat and file transfer for the terminal: a daemon and its clients",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Environment :: Console",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Communications :: Chat",
        "Topic :: Communications :: File Sharing",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[
        "tntd",
        "tntd.control",
        "tntd.machines",
        "tntd.node",
        "tntd.shell",
        "tntd.store",
        "tntd.wire",
        "tnt_client",
    ],
    package_dir={"tnt_client": "client"},
    package_data={"tntd": ["py.typed"], "tnt_client": ["py.typed"]},
    install_requires=[
        "backports.zstd>=1.0; python_version < '3.14'",
        "blake3>=1.0.5",
        "cryptography>=50",
        "mnemonic>=0.21",
        "msgspec>=0.20",
        "platformdirs>=4.3",
        "prompt_toolkit>=3.0.50",
        "pyOpenSSL>=26.2",
    ],
    extras_require={
        "fuzz": ["atheris>=3.0"],
        "test": [
            "hypothesis>=6.130",
            "import-linter>=2.3",
            "mypy>=1.18",
            "psutil>=7",
            "pytest>=8.4",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
        ],
    },
    entry_points={
        "console_scripts": [
            "tntd = tntd.cli:main",
            "tnt = tnt_client.tnt:main",
            "tnt-repl = tnt_client.repl:main",
        ]
    },
)
