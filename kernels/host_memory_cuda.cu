#include "kernels/device_queue.h"

namespace llmc::kernels {

bool DeviceQueue::SharesHostMemory() { return false; }

}  // namespace llmc::kernels
