"""Firmware: an IntegerProgram as C99 that runs on a chip, planned under its flash and RAM before it is written."""

from scrimp.export.firmware.export import export_firmware, plan_firmware
from scrimp.export.firmware.report import FirmwareReport

__all__ = ["FirmwareReport", "export_firmware", "plan_firmware"]
