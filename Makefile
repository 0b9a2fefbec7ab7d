# make                     everything that this machine can build, programs in build/
# make run                 the main job: install what is missing, build, train
# make check               the quick tests (installs what is missing first)
# make check-all           all tests and lint; what CI runs
# make check-cluster       the tests on pretend clusters, all of their cases (root, Linux)
# make CONFIG=asan check   the quick tests under ASan + UBSan (also: debug)
# make bench               the benchmark programs, one table each
# make gpu-check           on a machine with a GPU: every kernel against the CPU (PARTS=... of it)
# make gpu-bench           on a machine with a GPU: how fast they are, tables (PARTS=... of them)
# make gpu-programs        what these two need, to be carried to such a machine
# make lint                formatting, layers, shell scripts
# make info                what was found, and the flags in use
# make CUDA=0|1|auto       auto: build the CUDA worker if nvcc is there; 1: fail if not
# make NCCL=0|1|auto       auto: with NCCL in it if nccl.h is there (NCCL_HOME, CUDA_HOME, /usr)
# make V=1                 show commands

CONFIG ?= release
CUDA   ?= auto
NCCL   ?= auto
V      ?= 0
MARCH  ?= native
CC     := $(if $(filter default,$(origin CC)),gcc,$(CC))
MPICC  ?= mpicc
NVCC   ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc))
export OMPI_CC := $(CC)

flags.release := -O3 -g
flags.debug   := -O0 -g
flags.asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
sanitize = $(filter -fsanitize=%,$(flags.$(CONFIG)))
$(if $(flags.$(CONFIG)),,$(error CONFIG=$(CONFIG): want release, debug or asan))

# B: objects and programs of one configuration; release programs lie in build/ itself.
B ?= build$(if $(filter release,$(CONFIG)),,/$(CONFIG))
O := $(B)/obj

WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wvla -Wno-format-truncation -Werror
CPPFLAGS += -I. -D_GNU_SOURCE -MMD -MP
CFLAGS   += -std=c17 -ffp-contract=off $(flags.$(CONFIG)) $(WARN)

# --- features: $(call feature,NAME,wanted,proof) is empty or 1; asked for and missing stops
feature = $(if $(filter 0,$2),,$(if $(strip $3),1,$(if $(filter 1,$2),$(error \
          $1=1 was asked for, but $1 was not found))))
HAVE_CUDA := $(call feature,CUDA,$(CUDA),$(and $(NVCC),$(wildcard kernels/cuda/*.cu)))
NCCL_H    := $(firstword $(wildcard $(addsuffix /include/nccl.h,$(NCCL_HOME) \
             $(patsubst %/bin/nvcc,%,$(realpath $(NVCC))) /usr /usr/local)))
HAVE_NCCL := $(if $(HAVE_CUDA),$(call feature,NCCL,$(NCCL),$(NCCL_H)))
HAVE_MPI  := $(call feature,MPI,auto,$(shell command -v $(MPICC)))
HAVE_HDF5 := $(call feature,HDF5,auto,$(shell pkg-config --exists hdf5 && echo 1))
HDF5_INC  := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I hdf5 2>/dev/null))
HDF5_LIB  := $(shell pkg-config --libs hdf5 2>/dev/null)
VERSION   := $(shell cat VERSION)

# NCCL between GPUs; where there is no nccl.h, comm/no_nccl.c says so
nccl.src        := comm/comm_nccl.c comm/nccl_lib.c
# --- modules, ground first; a module links only against those before it ----------------
base.src        := $(wildcard base/*.c)
kernels.src     := $(wildcard kernels/*.c kernels/cpu/*.c kernels/cpu16/*.c kernels/guard/*.c)
kernels64.src   := $(wildcard kernels/cpu/*.c)
comm.src        := $(filter-out $(nccl.src),$(wildcard comm/*.c))
checkpoints.src := $(wildcard checkpoints/*.c)
scheduler.src   := $(wildcard scheduler/*.c)
trainer.src     := $(wildcard trainer/model/*.c trainer/data/*.c trainer/run/*.c trainer/hf/*.c)
# the front command takes single files of the modules, those without MPI and HDF5
FRONT_CHECKPOINTS := tool.c manifest.c shard_read.c catalog.c lease.c
front.src       := $(wildcard front/*.c) trainer/data/prepare.c \
                   $(addprefix checkpoints/,$(FRONT_CHECKPOINTS))

# the CUDA back end; its devices.c takes the place of kernels/devices.c
cuda.list := kernels/cuda/devices.c
cuda.src  := $(filter-out $(cuda.list),$(wildcard kernels/cuda/*.c)) $(wildcard kernels/cuda/*.cu)
# the same for the emulated GPU (tests/emu)
emu.src   := $(cuda.src) $(wildcard tests/emu/*.cu)

obj = $(patsubst %.cu,$(O)/%.o,$(patsubst %.c,$(O)/%.o,$1))
kernels.obj = $(call obj,$(kernels.src)) $(patsubst %.c,$(O)/%.64.o,$(kernels64.src))
libs = $(patsubst %,$(O)/lib%.a,trainer checkpoints comm kernels scheduler base)
cuda.worker = $(patsubst %,$(O)/lib%.a,trainer checkpoints comm kernels-cuda kernels scheduler base)
main.src := trainer/run/main.c

.PHONY: all run check check-all check-cluster gpu-check gpu-bench gpu-programs lint bench info clean deps deps-check deps-cluster
.DELETE_ON_ERROR:
.SECONDARY:
PROGRAMS := $(B)/kilorank $(B)/kilorank-worker-cpu $(if $(HAVE_CUDA),$(B)/kilorank-worker-cuda)
all: $(PROGRAMS)

, := ,
q = $(if $(filter 1,$V),,@printf '%-5s %s\n' $1 $@;)

$(O)/libbase.a: $(call obj,$(base.src))
$(O)/libkernels.a: $(kernels.obj)
$(O)/libcomm.a: $(call obj,$(comm.src))
$(O)/libcheckpoints.a: $(call obj,$(checkpoints.src))
$(O)/libscheduler.a: $(call obj,$(scheduler.src))
$(O)/libtrainer.a: $(call obj,$(filter-out $(main.src),$(trainer.src)))
$(O)/lib%.a:
	$(call q,AR)rm -f $@ && ar crD $@ $^

$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(call q,CC)$(compile) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<
$(O)/%.64.o: %.c
	@mkdir -p $(@D)
	$(call q,CC)$(compile) $(CPPFLAGS) -DKERN_REAL_IS_DOUBLE $(CFLAGS) -c -o $@ $<
compile = $(CC)
VECTOR := -march=$(MARCH)
$(O)/kernels/cpu/%.o: CFLAGS += $(VECTOR) -fopenmp -ffp-contract=fast
# the optimizer walks spans that begin anywhere: a tail and a vector must round alike
$(O)/kernels/cpu/adamw.o $(O)/kernels/cpu/adamw.64.o: CFLAGS += -ffp-contract=off
$(O)/base/hash.o $(O)/comm/%.o: CFLAGS += $(VECTOR)
# start values by several threads
$(O)/trainer/run/trainer.o: CFLAGS += -fopenmp
$(O)/comm/comm_mpi.o $(O)/tests/mpi/%.o: compile = $(MPICC)
$(O)/comm/comm_mpi.o $(O)/tests/mpi/%.o: WARN := $(filter-out -Wpedantic,$(WARN))
$(O)/checkpoints/shard_file.o $(O)/tests/unit/t_view.o: CPPFLAGS += $(HDF5_INC)
$(O)/trainer/run/commands.o $(O)/front/main.o: CPPFLAGS += -DKILORANK_VERSION='"$(VERSION)"'

# CUDA: machine code for sm_80 (A100; runs on sm_86 and sm_89), for sm_90 (H100, H200), and
# PTX for what comes later; kernels/cuda/sm90* for Hopper alone
CUDA_HOME  ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
CUDA_ARCH  := -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=[sm_90,compute_90]
HOPPER     := -gencode=arch=compute_90a,code=sm_90a
NVFLAGS    += -std=c++17 -O3 -I. -Xcompiler -Wall,-fno-exceptions -Werror all-warnings
CUDA_LIBS  := -L$(CUDA_HOME)/lib64 -lcudart_static -lsupc++ -lrt -ldl
$(O)/kernels/cuda/%.o: CPPFLAGS += $(if $(HAVE_CUDA),-isystem $(CUDA_HOME)/include)
$(O)/kernels/cuda/%.o: arch = $(CUDA_ARCH)
$(O)/kernels/cuda/sm90%.o: arch = $(HOPPER)
# as kernels/cpu/adamw.c: a tail and a vector round alike, and so do a CPU and a GPU
$(O)/kernels/cuda/adamw.o: NVFLAGS += -fmad=false
$(O)/kernels/cuda/%.o: kernels/cuda/%.cu
	@mkdir -p $(@D)
	$(call q,NVCC)$(NVCC) $(arch) $(NVFLAGS) -Xptxas -v -MD -MP -MF $(@:.o=.d) -c -o $@ $< \
	    2>$(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; exit 1; }
$(O)/libkernels-cuda.a: $(call obj,$(cuda.src))
$(call obj,$(nccl.src)): CPPFLAGS += -isystem $(CUDA_HOME)/include -idirafter $(dir $(NCCL_H))
nccl.obj = $(if $(HAVE_NCCL),$(call obj,$(nccl.src)))

# the emulated GPU: the same sources by the host's compiler
CXX := $(if $(filter default,$(origin CXX)),g++,$(CXX))
$(O)/emu/%.o: CPPFLAGS := -Itests/emu $(CPPFLAGS)
$(O)/emu/%.o: %.cu
	@mkdir -p $(@D)
	$(call q,EMU)$(CXX) $(CPPFLAGS) -x c++ -std=c++17 -O2 -g -ffp-contract=off -fno-strict-aliasing -Wall \
	    -Wno-unknown-pragmas -Wno-unused-function -Wno-psabi -Werror $(emu.more) -c -o $@ $<
# the machine in software that runs Hopper's
$(O)/emu/kernels/cuda/sm90%.o: emu.more := -march=$(MARCH) -Wno-uninitialized -Wno-maybe-uninitialized -Wno-array-bounds
$(O)/emu/%.o: %.c
	@mkdir -p $(@D)
	$(call q,EMU)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<
$(O)/tests/device/speed/lt.o $(O)/tests/device/speed/attention.o: CPPFLAGS += $(if $(HAVE_CUDA),-isystem $(CUDA_HOME)/include,-Itests/emu)
emu.obj = $(patsubst $(O)/%,$(O)/emu/%,$(call obj,$(cuda.list) $(emu.src)))
# with a NCCL of its own, which finds the emulated GPU in the program that opens it
emu.nccl = $(patsubst $(O)/%,$(O)/emu/%,$(call obj,$(nccl.src)))
EMU_LIBS := -rdynamic -Wl,-rpath,'$$ORIGIN/nccl' -lstdc++
$(B)/tests/emu/nccl/libnccl.so.2: tests/emu/nccl/nccl.cpp tests/emu/nccl.h
	@mkdir -p $(@D)
	$(call q,CXX)$(CXX) -Itests/emu -std=c++17 -O2 -g -fPIC -shared -Wall -Wextra -Werror -o $@ $< -pthread

LDFLAGS += -pthread
FRONT_LIBS  := -linih -lcjson -lxxhash -lpcre2-8 -luv -lm
WORKER_LIBS := $(filter-out -luv,$(FRONT_LIBS)) $(HDF5_LIB) -ldl -fopenmp

$(B)/kilorank: $(call obj,$(front.src)) $(O)/libtrainer.a $(O)/libscheduler.a $(O)/libbase.a
	$(call q,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(FRONT_LIBS)
$(B)/kilorank-worker-cpu: $(call obj,$(main.src)) $(libs)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS)
$(B)/kilorank-worker-cuda: $(call obj,$(main.src) $(cuda.list)) $(nccl.obj) $(cuda.worker)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) $(CUDA_LIBS)

# --- tests ---------------------------------------------------------------------------
unit  := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/unit/t_*.c))
mpi   := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/mpi/t_*.c))
bench := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/bench/*.c))
fuzz  := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/fuzz/*.c))
sm90  := $(patsubst tests/%.cpp,$(B)/tests/%,$(wildcard tests/sm90/t_*.cpp))
cli   := $(wildcard tests/cli/*.sh)
fault := $(wildcard tests/fault/*.sh)
cluster := $(wildcard tests/cluster/*.sh)

$(B)/tests/%: $(O)/tests/%.o $(libs)
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) -luv

# the Hopper kernels on a machine in software (tests/sm90/machine.h); optimised in every CONFIG
$(sm90): $(B)/tests/%: tests/%.cpp $(O)/libbase.a
	@mkdir -p $(@D) $(O)/$(dir $<)
	$(call q,CXX)$(CXX) -I. -D_GNU_SOURCE -MMD -MP -MF $(O)/$(basename $<).d -MT $@ -std=c++17 -O2 -g \
	    -march=$(MARCH) -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-missing-field-initializers \
	    -Wno-unused-function -Wno-uninitialized -Wno-array-bounds -Wno-psabi -o $@ $< $(O)/libbase.a \
	    $(LDFLAGS) $(sanitize) -lm

# every operation of a device against the CPU: on what the CPU has, on the emulated GPU, on
# a real one
parity.obj := $(patsubst %.c,$(O)/%.o,$(wildcard tests/device/*.c))
$(O)/tests/device/lab.o: CFLAGS += -fopenmp
$(B)/tests/device/parity: $(parity.obj) $(O)/libkernels.a $(O)/libbase.a
	@mkdir -p $(@D)
	$(call q,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS)
$(B)/tests/device/parity-emu: $(parity.obj) $(emu.obj) $(O)/libkernels.a $(O)/libbase.a
	@mkdir -p $(@D)
	$(call q,LINK)$(CXX) $(LDFLAGS) $(sanitize) -fopenmp -o $@ $^ $(WORKER_LIBS)
$(B)/tests/device/parity-cuda: $(parity.obj) $(call obj,$(cuda.list)) $(O)/libkernels-cuda.a \
                               $(O)/libkernels.a $(O)/libbase.a
	@mkdir -p $(@D)
	$(call q,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) $(CUDA_LIBS)

# golden values of whole models on the same two
golden.obj := $(O)/tests/unit/t_golden.o
$(B)/tests/device/golden-emu: $(golden.obj) $(emu.obj) $(libs)
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) -lstdc++
$(B)/tests/device/golden-cuda: $(golden.obj) $(call obj,$(cuda.list)) $(cuda.worker)
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) $(CUDA_LIBS)

# how fast they are; trace.c takes the place of devices.c
speed.obj := $(patsubst %.c,$(O)/%.o,$(wildcard tests/device/speed/*.c))
$(B)/tests/device/speed-emu: $(speed.obj) $(filter-out $(O)/emu/kernels/cuda/devices.o,$(emu.obj)) $(libs)
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) -lstdc++
$(B)/tests/device/speed-cuda: $(speed.obj) $(cuda.worker)
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) $(CUDA_LIBS)

# what a step asks of the GPU; orders of sums
$(B)/tests/emu/t_step $(B)/tests/emu/t_embed: $(B)/%: $(O)/%.o $(emu.obj) $(libs)
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(WORKER_LIBS) -lstdc++

# the whole worker on the emulated GPU
$(B)/tests/emu/kilorank-worker-cuda: $(call obj,$(main.src)) $(emu.obj) $(emu.nccl) $(libs) $(B)/tests/emu/nccl/libnccl.so.2
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter-out %.so.2,$^) $(WORKER_LIBS) $(EMU_LIBS)
$(B)/tests/emu/t_nccl $(B)/tests/emu/t_snapshot: $(B)/%: $(O)/%.o $(emu.obj) $(emu.nccl) $(libs) $(B)/tests/emu/nccl/libnccl.so.2
	@mkdir -p $(@D)
	$(call q,LINK)$(MPICC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter-out %.so.2,$^) $(WORKER_LIBS) $(EMU_LIBS)

# fuzz targets: clang, everything they reach built with coverage and sanitizers
FUZZ_CC   ?= $(firstword $(shell command -v clang clang-14))
FUZZ_FLAGS := -std=c17 -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
fuzz.src  := $(base.src) $(addprefix checkpoints/,manifest.c safetensors.c st_folder.c) \
             $(addprefix scheduler/,wire.c nodes.c) trainer/run/settings.c \
             $(addprefix trainer/model/,family.c lora.c) \
             $(addprefix trainer/data/,tokens.c tokenizer.c tokenizer_file.c steps_file.c steps.c \
             pattern.c added.c bpe.c object.c)
$(O)/fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(call q,FUZZ)$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_FLAGS) -c -o $@ $<
$(O)/fuzz/lib.a: $(patsubst %.c,$(O)/fuzz/%.o,$(fuzz.src))
	$(call q,AR)rm -f $@ && ar crD $@ $^
$(fuzz): $(B)/tests/fuzz/%: $(O)/fuzz/tests/fuzz/%.o $(O)/fuzz/lib.a
	@mkdir -p $(@D)
	$(call q,LINK)$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(FRONT_LIBS)

# tests link against everything; those without a source of their own are shell scripts
device := $(addprefix $(B)/tests/,device/parity device/parity-emu device/golden-emu emu/t_step emu/t_embed emu/t_nccl emu/t_snapshot)
tests-quick := $(unit) $(sm90) $(mpi) $(device) $(cli)
.PHONY: tests fuzz
tests: $(PROGRAMS) $(unit) $(sm90) $(mpi) $(device) $(B)/tests/emu/kilorank-worker-cuda \
    $(B)/tests/device/speed-emu
fuzz: $(fuzz)

# compilers at a time, where nobody said (make -j): one on each core
each_core = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
# at a time: two, where there are two cores; some start several ranks
JOBS ?= $(if $(filter 1,$(shell nproc)),1,2)
# sanitizers make a test several times slower; seconds a program may take.  Leaks are not
# looked for: Open MPI keeps what it has, and tests leave their operands to the end.
export ASAN_OPTIONS ?= detect_leaks=0
limit := $(if $(filter asan,$(CONFIG)),600,120)
check: deps-check
	@$(MAKE) --no-print-directory $(each_core) tests
	@BUILD=$(B) TEST_TIMEOUT=$(limit) tests/run --jobs $(JOBS) $(tests-quick)
check-all: deps-cluster
	@$(MAKE) --no-print-directory $(each_core) tests fuzz
	@BUILD=$(B) NVCC=$(if $(HAVE_CUDA),$(NVCC)) tests/run --jobs $(JOBS) \
	    scripts/lint scripts/gpu-gates $(tests-quick) $(fault) $(cluster) tests/fuzz/run.sh
check-cluster: deps-cluster
	@$(MAKE) --no-print-directory $(each_core) tests
	@BUILD=$(B) CLUSTER_CASES=all tests/run $(cluster)
run: deps
	@$(MAKE) --no-print-directory $(each_core) all
	@BUILD=$(B) scripts/quick-start
bench: deps
	@$(MAKE) --no-print-directory $(each_core) all
	@BUILD=$(B) scripts/bench
gpu-programs:
	@$(if $(HAVE_CUDA),,echo "$@: error: no nvcc, so no CUDA worker (make info)" >&2; exit 1)
	@$(MAKE) --no-print-directory $(each_core) all $(addprefix $(B)/tests/device/,parity-cuda golden-cuda speed-cuda)
gpu-bench: gpu-programs
	@BUILD=$(B) scripts/gpu-bench $(PARTS)
gpu-check: gpu-programs
	@BUILD=$(B) scripts/gpu-check $(PARTS)
deps:
	@scripts/install-deps run
deps-check:
	@scripts/install-deps check
deps-cluster:
	@scripts/install-deps cluster
lint:
	@scripts/lint
info:
	@echo "CONFIG  $(CONFIG), programs in $(B)/"
	@echo "CC      $(CC)    MARCH $(MARCH) (kernels and reductions; set it to build for other nodes)"
	@echo "MPI     $(if $(HAVE_MPI),$(shell command -v $(MPICC)),not found: install libopenmpi-dev)"
	@echo "HDF5    $(if $(HAVE_HDF5),$(shell pkg-config --modversion hdf5),not found: install libhdf5-dev)"
	@echo "CUDA    $(if $(HAVE_CUDA),$(NVCC); sm_80$(,) sm_90 and PTX; Hopper's own: $(or $(wildcard kernels/cuda/sm90*.cu),none),no CUDA worker is built: no nvcc$(if $(filter 0,$(CUDA)), was asked for))"
	@echo "NCCL    $(if $(HAVE_NCCL),$(NCCL_H); libnccl.so.2 is opened when several ranks use GPUs,$(if $(HAVE_CUDA),no nccl.h$(if $(filter 0,$(NCCL)), was asked for): GPUs of several ranks meet through host memory (dist.comm = mpi),no CUDA worker is built))"
	@echo "CFLAGS  $(CFLAGS)"
clean:
	rm -rf build

-include $(shell find $(O) -name '*.d' 2>/dev/null)
