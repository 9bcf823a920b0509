"""The model zoo: one file, one model of the literature, each a spec that a user could have written."""

from econrl.models.aiyagari import Aiyagari
from econrl.models.brock_mirman import BrockMirman
from econrl.models.buffer_stock import BufferStock
from econrl.models.copies import Copies
from econrl.models.durables import Durables
from econrl.models.epstein_zin_growth import EpsteinZinGrowth
from econrl.models.firms import Firms
from econrl.models.growth import StochasticGrowth
from econrl.models.habit import Habit
from econrl.models.housing import Housing
from econrl.models.investment import Investment
from econrl.models.irbc import IRBC
from econrl.models.job_search import JobSearch
from econrl.models.life_cycle import LifeCycle
from econrl.models.life_cycle_portfolio import LifeCyclePortfolio
from econrl.models.linear_quadratic import LinearQuadratic
from econrl.models.long_plosser import LongPlosser
from econrl.models.pension import Pension
from econrl.models.portfolio import Portfolio
from econrl.models.retirement import Retirement
from econrl.models.rust_bus import RustBus
from econrl.models.two_assets import TwoAssets

__all__ = [
    "IRBC",
    "Aiyagari",
    "BrockMirman",
    "BufferStock",
    "Copies",
    "Durables",
    "EpsteinZinGrowth",
    "Firms",
    "Habit",
    "Housing",
    "Investment",
    "JobSearch",
    "LifeCycle",
    "LifeCyclePortfolio",
    "LinearQuadratic",
    "LongPlosser",
    "Pension",
    "Portfolio",
    "Retirement",
    "RustBus",
    "StochasticGrowth",
    "TwoAssets",
]
