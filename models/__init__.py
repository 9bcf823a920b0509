"""The model zoo: one file, one model of the literature, each a spec that a user could have written."""

from econrl.models.brock_mirman import BrockMirman
from econrl.models.buffer_stock import BufferStock
from econrl.models.copies import Copies
from econrl.models.durables import Durables
from econrl.models.firms import Firms
from econrl.models.growth import StochasticGrowth
from econrl.models.housing import Housing
from econrl.models.investment import Investment
from econrl.models.irbc import IRBC
from econrl.models.job_search import JobSearch
from econrl.models.life_cycle import LifeCycle
from econrl.models.linear_quadratic import LinearQuadratic
from econrl.models.long_plosser import LongPlosser
from econrl.models.portfolio import Portfolio
from econrl.models.retirement import Retirement
from econrl.models.rust_bus import RustBus

__all__ = [
    "IRBC",
    "BrockMirman",
    "BufferStock",
    "Copies",
    "Durables",
    "Firms",
    "Housing",
    "Investment",
    "JobSearch",
    "LifeCycle",
    "LinearQuadratic",
    "LongPlosser",
    "Portfolio",
    "Retirement",
    "RustBus",
    "StochasticGrowth",
]
