// nextflow run examples/main.nf --cohort cohort.h5ad --sample_key sample --label disease --groups_key donor
params.cohort = 'cohort.h5ad'
params.sample_key = 'sample'
params.label = 'disease'
params.groups_key = 'donor'
params.methods = 'mean,kmeans_fractions,maestro,scset'

process FIT {
    cpus 2
    memory '8 GB'
    // 143 and 130: stopped by the scheduler; anything else is an error of the data or of the command line
    errorStrategy { task.exitStatus in [130, 143] ? 'retry' : 'terminate' }
    maxRetries 2

    input:
    tuple val(method), path(cohort)

    output:
    tuple val(method), path("${method}.h5ad")

    script:
    """
    OMP_NUM_THREADS=${task.cpus} scset-tools fit ${method} ${cohort} --sample-key ${params.sample_key} --output ${method}.h5ad
    """
}

process PROBE {
    publishDir 'results', mode: 'copy'

    input:
    tuple val(method), path(samples)

    output:
    path "${method}.csv"

    script:
    """
    scset-tools probe ${samples} ${params.label} --groups-key ${params.groups_key} --output ${method}.csv
    """
}

workflow {
    methods = Channel.fromList(params.methods.tokenize(','))
    FIT(methods.combine(Channel.fromPath(params.cohort)))
    PROBE(FIT.out)
}
